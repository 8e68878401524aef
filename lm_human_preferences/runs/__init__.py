"""A run on disk: its folder, checkpoints, statistics and samples, and how a run resumes."""
