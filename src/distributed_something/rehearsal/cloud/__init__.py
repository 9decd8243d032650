"""What brings the pretend account to life: machines, tasks, and what goes wrong with them."""
