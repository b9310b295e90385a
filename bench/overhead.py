"""What one small operation costs, ours against torch's, in one process: `overhead.py [--check]`.

The measuring code is that of `flambeau bench`. The bounds are the project's own: at most 1.5 times
torch for a small operation and a forward pass, at most torch's time for forward and backward of a
small MLP.
"""

from __future__ import annotations

import sys

from flambeau.cli.bench import main

if __name__ == "__main__":
    sys.exit(main())
