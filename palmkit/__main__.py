"""`python -m palmkit`: the command line, see `palmkit.cli`."""

import sys

from palmkit.cli import main

if __name__ == "__main__":
    status = main()
    # A text that `exec` runs (dataclasses have some) may have been interrupted, and the interrupt
    # handled. Python then ends by the signal all the same, not with the status, unless another
    # text has run since.
    exec("")
    sys.exit(status)
