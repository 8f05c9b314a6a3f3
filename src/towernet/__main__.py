"""`python -m towernet`: the same as the command `towernet`."""

import sys

from towernet.cli.main import main

sys.exit(main())
