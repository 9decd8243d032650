"""Benchmarks: `make bench`. Everything is a ratio to something that runs beside it, in the same minutes."""
