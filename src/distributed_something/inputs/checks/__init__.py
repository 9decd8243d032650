"""Checks of jobs and config before a run: what fits, what is there, what can start."""
