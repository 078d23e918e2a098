"""`python -m jaxviz` is the command `jaxviz`."""

import sys

from jaxviz.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
