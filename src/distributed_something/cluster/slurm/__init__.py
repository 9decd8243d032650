"""Pilots are jobs of a Slurm cluster: its commands, its words, `ds check` for it."""
