"""The command line: words in, words out. `run.py` of every project imports `main` from here."""

from .entry import main
from .parser import COMMANDS, REFERENCE_NAMES, build_parser

__all__ = ["COMMANDS", "REFERENCE_NAMES", "build_parser", "main"]
