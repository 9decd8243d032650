"""Decides what `ds check` says of AWS's answers, and at which size a run meets a limit. Pure."""
