"""The data of the demo, which runs the whole method in minutes on human sentiment ratings of short texts."""
