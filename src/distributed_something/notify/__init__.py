"""Tells people that a run has ended, has its first dead job, or has stalled: NOTIFY in the config."""
