"""Helpers that know nothing of the method, of TensorFlow or of a run: hyperparameter trees, errors, files, progress."""
