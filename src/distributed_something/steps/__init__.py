"""The steps of a run: one file each, its main function first. The command line calls them, on any engine."""
