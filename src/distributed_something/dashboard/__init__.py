"""The web page of a run: a view of what `ds status` and `ds jobs` show, over the engine protocols only."""
