"""`python -m taximeter.cli`: the command line where the launcher is not installed."""

import sys

from taximeter.cli import main

if __name__ == "__main__":
    sys.exit(main())
