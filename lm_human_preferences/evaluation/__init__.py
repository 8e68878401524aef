"""What `evaluate` measures: policies on held-out queries, reward models on labels, and the figures of texts."""
