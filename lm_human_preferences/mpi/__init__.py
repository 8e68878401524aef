"""The MPI ranks of a run, what they average and broadcast, and their seeds."""
