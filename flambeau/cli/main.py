"""`flambeau COMMAND`: parse, run, and answer the user's mistakes with a sentence."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from flambeau.cli import bench, cache, info, train
from flambeau.cli.errors import INTERRUPTED, UserError

__all__ = ["main"]


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; each command adds itself and sets `run`, called with the options."""
    parser = argparse.ArgumentParser(
        prog="flambeau", description="PyTorch's API on kernels generated at run time.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (train, info, bench, cache):
        command.add_command(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 1 failed, 2 mistyped, 130 interrupted.

    Set FLAMBEAU_TRACEBACK=1 to see the traceback behind an error message.
    """
    options = build_parser().parse_args(arguments)
    try:
        return options.run(options)
    except UserError as error:
        if os.environ.get("FLAMBEAU_TRACEBACK"):
            raise
        print(f"flambeau: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("flambeau: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe such as `flambeau info | head -1` has gone; keep the exit from
        # complaining too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
