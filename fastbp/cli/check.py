"""``fastbp check``: the book's gradient check, on real data."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from .options import (
    CommandFailed,
    UsageError,
    add_data,
    add_network,
    add_threads,
    build_network,
    load_data,
    positive_int,
    set_threads,
)


def add_to(commands: Any) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "check",
        help="compare backpropagation with central differences",
        description="Compare the gradients of backpropagation with central differences, in every "
        "element of every parameter.  Exit code 1 if one is wrong.",
        allow_abbrev=False,
    )
    parser.set_defaults(run=run, command="check")
    add_data(parser)
    add_network(parser)
    parser.add_argument(
        "--images",
        type=positive_int,
        default=3,
        metavar="N",
        help="how many examples, the first of the training data (default: 3)",
    )
    add_threads(parser)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def run(options: argparse.Namespace) -> int:
    """Run the command; returns the exit code."""
    set_threads(options)
    data = load_data(options)
    if options.images > len(data.x_train):
        raise UsageError(
            f"argument --images: {options.images} is more than the {len(data.x_train)} there are"
        )
    network = build_network(options, data)

    from tqdm import tqdm

    from ..gradient import check_gradient

    with tqdm(
        total=sum(p.size for p in network.params.values()),
        desc="central differences",
        unit="weight",
        disable=True if options.quiet else None,
        delay=1,
        leave=False,
    ) as bar:
        x, t = data.x_train[: options.images], data.t_train[: options.images]
        result = check_gradient(network, x, t, progress=bar.update)
    if not options.quiet:
        print(f"{network!r}, {options.images} examples of {data.name}\n\n{result}\n")
    if not result.passed:
        wrong = [parameter.name for parameter in result.parameters if parameter.wrong]
        raise CommandFailed(f"the gradients are WRONG: {', '.join(wrong)}")
    if not options.quiet:
        print("All gradients agree with central differences.", file=sys.stdout)
    return 0
