"""`python -m palmkit`: the command line, see `palmkit.cli`."""

import sys

from palmkit.cli import main

if __name__ == "__main__":
    sys.exit(main())
