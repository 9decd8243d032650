"""`python -m distributed_something` is `ds`."""

import sys

from .cli import main

sys.exit(main())
