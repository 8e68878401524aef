"""The published text data sets, and text files of the user."""
