"""Helpers that know nothing of the method: hyperparameter trees, errors, ranks, files."""
