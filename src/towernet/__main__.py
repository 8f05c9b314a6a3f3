"""`python -m towernet` is the command."""

import sys

from towernet.cli.main import main

sys.exit(main())
