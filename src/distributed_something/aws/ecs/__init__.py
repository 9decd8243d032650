"""Cluster, tasks and service: what is wanted, what is there, and the steps between."""
