"""Models and labels in the file formats of other programs."""
