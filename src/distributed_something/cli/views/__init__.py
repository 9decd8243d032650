"""What the commands that only look print: status, jobs, logs, failures, runs, findings."""
