"""Brings a job's files in and out: inputs fetched, outputs published with a manifest, done jobs recognised.

Knows the store, and neither queue nor processes. `worker.attempt.slot` calls it; `ds check` asks `done`.
"""
