"""Engines of pilots: processes on other computers that run our worker, and a queue in the shared folder."""
