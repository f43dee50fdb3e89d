"""The command line: options, configurations, run folders, and how commands are found."""
