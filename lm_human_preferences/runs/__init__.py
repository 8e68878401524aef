"""A run on disk: its folder, checkpoints, statistics and samples, and whether it may resume."""
