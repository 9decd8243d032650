"""Run one command or Python function over many independent jobs, here or on rented machines."""

__version__ = "0.1.0"
