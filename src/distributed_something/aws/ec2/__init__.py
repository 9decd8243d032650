"""Machines: fleets, launch templates, what they cost, and why none come."""
