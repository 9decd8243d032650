"""The web page of a run: a view of the data that `ds status` and `ds jobs` print. Knows no engine by name."""
