"""`python -m pq` is the console script `pq`."""

import sys

from .cli import main

sys.exit(main())
