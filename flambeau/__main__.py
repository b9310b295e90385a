"""`python -m flambeau`: the same as the `flambeau` command."""

from __future__ import annotations

import sys

from flambeau.cli.main import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())
