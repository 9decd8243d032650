"""`python -m distributed_something` is `ds`."""

import sys

try:
    from .cli import main

    sys.exit(main())
except KeyboardInterrupt:  # before the command line is up
    sys.exit(130)
