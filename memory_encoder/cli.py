"""Command line: `python -m memory_encoder COMMAND`. Each command is the same code as its node."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence

from .budget import HOSTS, Plan, describe, estimate, named_host
from .conversion.convert_command import add_convert_arguments, run_convert
from .evaluation.comparison.compare_command import add_compare_arguments, run_compare
from .evaluation.judge.judge_arguments import add_judge_arguments
from .phi.config import DEFAULT_WINDOW
from .training.arguments import add_cache_arguments, add_evaluate_arguments, add_pack_arguments, add_train_arguments
from .training.interruption import Stopped


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, or 2 after a message that names what is wrong, or as signals do when stopped."""
    args = _parser().parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except Stopped as stopped:
        return stopped.code
    except KeyboardInterrupt:
        sys.stderr.write("stopped; run the same command again\n")
        return 130
    return 0


def _check_numbers(args: argparse.Namespace) -> None:
    """Raises ValueError for NaN and infinity, for commands that do not say a range of each number themselves."""
    for name, value in vars(args).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--{name.replace('_', '-')} is {value}; give a finite number")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m memory_encoder", description="Video memory for ComfyUI")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    tokens = commands.add_parser("tokens", help="print the number of memory tokens of a history")
    _plan_arguments(tokens)
    tokens.set_defaults(run=lambda args: print(estimate(_plan(args)).memory_tokens))
    budget = commands.add_parser("budget", help="print tokens and estimated VRAM of a plan")
    _plan_arguments(budget)
    budget.add_argument("--section-seconds", type=float, default=5.0, help="longest section (default 5)")
    budget.add_argument("--card-gib", type=float, default=12.0, help="VRAM of the card in GiB (default 12)")
    budget.add_argument(
        "--bytes-per-weight", type=float, default=1.0, help="1 for fp8, 2 for bf16, about 0.6 for Q4 (default 1)"
    )
    budget.add_argument("--horizon", type=int, default=0, help="most memory tokens that a section sees (default all)")
    budget.add_argument(
        "--sliding-window", type=int, default=DEFAULT_WINDOW,
        help=f"last latents seen uncompressed (default {DEFAULT_WINDOW})",
    )  # fmt: skip
    budget.add_argument("--cached", action="store_true", help="of encoders whose memory attention is cached")
    budget.set_defaults(run=lambda args: print(describe(_plan(args), args.host)))
    cache = commands.add_parser("cache", help="encode a folder of videos and captions once, for training")
    add_cache_arguments(cache)
    cache.set_defaults(run=_cache)
    pack = commands.add_parser("pack", help="put a cached dataset into large files, for object storage")
    add_pack_arguments(pack)
    pack.set_defaults(run=_pack)
    train = commands.add_parser("train", help="train an encoder and the host's LoRA, or a small host itself")
    add_train_arguments(train)
    train.set_defaults(run=_train)
    evaluate = commands.add_parser("evaluate", help="measure how well a memory gives the frames of clips back")
    add_evaluate_arguments(evaluate)
    evaluate.set_defaults(run=_evaluate)
    judge = commands.add_parser("judge", help="measure a film: which shot falls out, and how it stands against others")
    add_judge_arguments(judge)
    judge.set_defaults(run=_judge)
    convert = commands.add_parser("convert", help="convert published checkpoints of trained memories")
    add_convert_arguments(convert)
    convert.set_defaults(run=run_convert)
    compare = commands.add_parser("compare", help="a blind page of films side by side, and ELO from its votes")
    add_compare_arguments(compare)
    compare.set_defaults(run=run_compare)
    return parser


def _cache(args: argparse.Namespace) -> None:
    from .training.dataset.cache_command import run_cache

    run_cache(args)


def _pack(args: argparse.Namespace) -> None:
    from .training.dataset.pack import run_pack

    run_pack(args)


def _evaluate(args: argparse.Namespace) -> None:
    from .training.evaluate_command import run_evaluate

    _check_numbers(args)
    run_evaluate(args)


def _judge(args: argparse.Namespace) -> None:
    from .evaluation.judge.judge_command import run_judge

    run_judge(args)


def _train(args: argparse.Namespace) -> None:
    from .training.train_command import run_train

    _check_numbers(args)
    run_train(args)


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", required=True, choices=sorted(HOSTS), help="the model")
    parser.add_argument("--width", type=int, required=True, help="in pixels")
    parser.add_argument("--height", type=int, required=True, help="in pixels")
    parser.add_argument("--seconds", type=float, required=True, help="length of the history")
    parser.add_argument("--fps", type=float, required=True, help="frames a second")
    parser.add_argument(
        "--rate", action="append", help="HEIGHTxWIDTHxTIME (default 4x4x2); once for each of several encoders"
    )
    parser.add_argument(
        "--padding", choices=("ceil", "floor"), default="ceil", help="or cropped to whole cells (default ceil)"
    )


def _plan(args: argparse.Namespace) -> Plan:
    _check_numbers(args)
    extra = {
        name: getattr(args, name)
        for name in ("section_seconds", "card_gib", "bytes_per_weight", "horizon", "sliding_window", "cached")
        if hasattr(args, name)
    }
    return Plan(
        host=named_host(args.host),
        width=args.width,
        height=args.height,
        fps=args.fps,
        history_seconds=args.seconds,
        rates=tuple(args.rate or ("4x4x2",)),
        padding=args.padding,
        **extra,
    )
