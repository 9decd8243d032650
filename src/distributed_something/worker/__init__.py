"""The worker: leases jobs, runs them in slots, settles them. The same code on every engine."""
