"""The launcher: the command line, the ranks that it starts, and the hosts and folders they use."""
