"""Runs one call of an `Executor` as a job: the HANDLER of its workers.

It is copied beside the executor's config, and imports nothing of this package: in a container the image's own
Python runs it. A message that it ends with is the reason that the future shows.
"""

from __future__ import annotations

import base64
import pickle
import sys
from pathlib import Path

RESULT = "result.pickle"
RESULT_BYTES = 64 << 20
"""Largest pickled result, in bytes."""


def version() -> str:
    """Returns the version of this Python, as far as pickles depend on it."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def call(call: str, python: str, output_dir: Path) -> None:
    """Unpickles a function with its arguments, calls it, and writes its pickled result."""
    if python != version():
        raise SystemExit(f"the call was pickled by Python {python}, and the worker's is {version()}")
    try:
        import cloudpickle
    except ImportError:
        raise SystemExit("cloudpickle is not installed for the worker's Python") from None
    function, args, named = pickle.loads(base64.b64decode(call))  # noqa: S301  our own caller's
    result = cloudpickle.dumps(function(*args, **named))
    if len(result) > RESULT_BYTES:
        size = f"{len(result):,} bytes pickled, more than {RESULT_BYTES:,}"
        raise SystemExit(f"the result is too large: {size}; write it to a file and return its name")
    (output_dir / RESULT).write_bytes(result)
