"""Metrics of policies on held-out queries, of reward models on labels, and of texts."""
