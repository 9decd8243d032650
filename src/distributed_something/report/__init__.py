"""Builds a run's report from its ledger: figures, advice, failures, page. Prints nothing."""
