"""Runs on a Slurm cluster: pilots (Slurm jobs that run our worker) and a queue in the shared folder."""
