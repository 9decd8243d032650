"""Reads and checks what the user wrote: config, job file, fleet file, COMMAND."""
