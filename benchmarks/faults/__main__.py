"""Command line of the faults: `python -m benchmarks.faults COMMAND --help`."""

from __future__ import annotations

import argparse
import logging

from . import fuzz, kills, long, operations, routes, table, widgets


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (fuzz, kills, long, operations, routes, widgets, table):
        module.add_command(commands)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    args.run(args)


if __name__ == "__main__":
    main()
