"""Brings the pretend account to life: machines, tasks, and their faults."""
