"""Requests of fleets: from a fleet file or the config alone, and what a new machine does first."""
