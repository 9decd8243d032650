"""Implements the engine `local`: a SQLite queue, worker processes and folders on this machine."""
