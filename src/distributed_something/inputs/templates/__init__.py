"""Texts with `{name}` placeholders: COMMAND, INPUTS and OUTPUT, compiled, judged and filled."""
