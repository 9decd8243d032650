"""Watching a run: each look and what follows from it, up to the end of the run."""
