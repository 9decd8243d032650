"""Describes a run as data: its record, its run file, its logs, what ran, and one view of its state."""
