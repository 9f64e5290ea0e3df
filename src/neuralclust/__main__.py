"""``python -m neuralclust`` is the command line."""

import sys

from neuralclust.cli import main

if __name__ == "__main__":
    sys.exit(main())
