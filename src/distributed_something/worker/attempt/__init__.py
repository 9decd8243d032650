"""Runs one attempt at a job: inputs, the job's process or container, outputs and their manifest.

Knows no queue and no ledger. `worker.loop` and the engines' workers call it.
"""
