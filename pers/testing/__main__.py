"""``python -m pers.testing``."""

import sys

from pers.testing.command import main

if __name__ == "__main__":
    sys.exit(main())
