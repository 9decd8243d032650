"""The command line: parses words, calls steps and views. `run.py` of a project imports `main` from here."""

from .entry import main
from .parser import COMMANDS, REFERENCE_NAMES, build_parser

__all__ = ["COMMANDS", "REFERENCE_NAMES", "build_parser", "main"]
