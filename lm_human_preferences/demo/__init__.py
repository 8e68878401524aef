"""The demo: the whole method in minutes on human sentiment ratings of short texts."""
