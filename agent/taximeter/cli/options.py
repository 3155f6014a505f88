"""Values of options that are more than a word, read so that what is wrong is said in our words.

Owns their wording. Refuses to know which option it reads: the command line says that before it.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import typer

_Word = TypeVar("_Word", bound=StrEnum)
_MOST_DIGITS = 9


def one_of(words: type[_Word]) -> Callable[[str], _Word]:
    """Make a reader of one of a few words."""

    def read(said: str) -> _Word:
        if said in list(words):
            return words(said)
        raise typer.BadParameter(f"cannot use {said!r}: expected one of {', '.join(words)}")

    return read


def choices(words: type[StrEnum]) -> str:
    """Return how the help names these words."""
    return f"[{'|'.join(words)}]"


def count(said: str) -> int:
    """Read how many, at least one."""
    if said.isascii() and said.isdigit() and len(said) <= _MOST_DIGITS and int(said) > 0:
        return int(said)
    raise typer.BadParameter(f"cannot use {said!r}: expected a whole number from 1")
