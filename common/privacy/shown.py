"""How public constants of the account are written for people: as they are, while what was spent is rounded up."""

from __future__ import annotations


def show_exact(number: float) -> str:
    """Write a promise, a limit or a delta as it is: few digits where they mean just this number, else all of them."""
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))
