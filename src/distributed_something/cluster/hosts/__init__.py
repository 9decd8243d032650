"""Pilots are processes on hosts, started by the user's own ssh: one a host, found by a name of ours."""
