"""`python -m gploss ...` is the installed command `gploss ...`."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points


def main() -> int:
    """Find the command where the package is installed (it is made of more than this package), and run it."""
    for command in entry_points(group="console_scripts", name="gploss"):
        run = command.load()
        return int(run())
    print("Error: gploss is not installed, so its command is not known: pip install .", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
