"""Containers: the engines of this machine, and what each does with a container."""
