"""Leases jobs, runs them in slots and settles them: one worker process, the same on every engine.

`loop.Worker` is its heart; `attempt/` runs one attempt. Engines import it; it imports no engine.
"""
