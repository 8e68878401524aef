"""The MPI ranks of a run: their collectives and their seeds."""
