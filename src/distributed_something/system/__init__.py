"""Describes this computer: container engine, state folders, loopback, disk and memory, garbage collector.

Knows no job and no run; every engine and the worker call it.
"""
