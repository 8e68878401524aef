"""TensorFlow plumbing: the differences between versions, variables, gradients and the optimizer."""
