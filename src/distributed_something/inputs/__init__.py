"""What the user wrote, read once and checked: config, job file, fleet file."""
