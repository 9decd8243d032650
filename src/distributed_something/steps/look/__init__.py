"""Reading what runs left: their jobs, and one run beside another."""
