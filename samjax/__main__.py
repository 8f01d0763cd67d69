"""`python -m samjax`, where the command is not installed."""

import sys

from samjax.cli import main

sys.exit(main(sys.argv[1:]))
