"""`python -m jaxviz` is the command `jaxviz`."""

import sys

from jaxviz.cli import main

if __name__ == "__main__":
    sys.exit(main())
