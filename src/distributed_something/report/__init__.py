"""A run as a page and as text: what is shown of it, computed from the ledger. Prints nothing."""
