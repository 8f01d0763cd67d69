"""`python -m samjax`, where the command is not installed."""

import sys

from samjax.cli.command import main

sys.exit(main())
