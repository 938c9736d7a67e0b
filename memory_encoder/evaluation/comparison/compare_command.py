"""`python -m memory_encoder compare`: a blind page for people, and ELO scores from their votes."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .study import PAGE, read_key, read_votes, write_study

QUESTION = "Which film do you like better?"


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "films", nargs="*", type=Path, help="folders, one of each method, with files of the same names; or single films"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the study: a page, its films and the key")
    parser.add_argument("--question", default=QUESTION, help=f"what people are asked (default: {QUESTION})")
    parser.add_argument("--pairs", type=int, default=0, help="at most as many pairs (default: all there are)")
    parser.add_argument("--votes", nargs="+", type=Path, help="CSV files of the page: print the scores")
    parser.add_argument("--seed", type=int, help="of the hidden order (default: another each time)")


def run_compare(args: argparse.Namespace) -> None:
    if bool(args.films) == bool(args.votes):
        raise ValueError("give films to make a page of, or --votes to count, and not both")
    if args.votes:
        from .elo import scores, table

        key = read_key(args.out)
        votes = read_votes(args.votes, key)
        sys.stdout.write(table(scores(sorted(set(key.values())), votes)) + f"\n\n{len(votes)} votes\n")
        return
    count = write_study(args.films, args.out, args.question, most=args.pairs, seed=args.seed)
    sys.stdout.write(
        f"{count} pairs: open {args.out / PAGE}, or send the folder without key.json, which says whose film is which.\n"
        f"Count the votes with: python -m memory_encoder compare --out {args.out} --votes VOTES.csv\n"
    )
