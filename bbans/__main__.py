"""`python -m bbans` is the command `bbans`."""

import sys

from bbans.cli.main import main

sys.exit(main())
