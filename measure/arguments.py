"""Types of arguments for the parsers of scripts: numbers that can do."""

import argparse
import math
from collections.abc import Callable


def at_least(least: int) -> Callable[[str], int]:
    """The type of a whole number of `least` or more."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < least:
            raise argparse.ArgumentTypeError(
                f"found {text}, expected a whole number of {least} or more"
            )
        return number

    return parse


def positive(text: str) -> float:
    """The type of a finite number above 0."""
    number = _finite(text)
    if number is None or number <= 0:
        raise argparse.ArgumentTypeError(f"found {text}, expected a number above 0")
    return number


def not_negative(text: str) -> float:
    """The type of a finite number of 0 or more."""
    number = _finite(text)
    if number is None or number < 0:
        raise argparse.ArgumentTypeError(
            f"found {text}, expected a number of 0 or more"
        )
    return number


def _finite(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def require_whole_groups(
    parser: argparse.ArgumentParser, batch_size: int, group_size: int
) -> None:
    """End where --batch-size does not consist of groups of --group-size."""
    if batch_size % min(group_size, batch_size):
        parser.error(
            f"--group-size: found {group_size}, expected a divisor of the "
            f"{batch_size} photos of a batch"
        )
