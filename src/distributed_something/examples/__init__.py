"""The projects that `ds init` copies: each runs as it stands."""
