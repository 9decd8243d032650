"""The steps: one file each, a screenful, on any engine."""
