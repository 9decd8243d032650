"""`python -m distributed_something.rehearsal.emulator`: the emulator alone."""

import sys

from .server import main

sys.exit(main())
