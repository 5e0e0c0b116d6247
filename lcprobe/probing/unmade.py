"""Samples that cannot be made: one of them leaves its whole unit out, for every model alike, and the run goes on.

A plan tries the first samples of a cell; a later one may need more tokens than there are, or be text that the
tokenizer merges in every attempt. Without the others of its unit, models would be compared on different samples.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from lcprobe.errors import EpisodeError
from lcprobe.tasks.episode import Factors

Made = TypeVar("Made")


class NotMade(EpisodeError):
    """A unit of which one sample cannot be made. unit: its label."""

    def __init__(self, unit: str, factors: Factors, tokenizer: str, reason: EpisodeError):
        sample = f"sample {factors.index} at depth {factors.depth:g} with tokenizer {tokenizer}"
        super().__init__(unit, sample, f"samples that can all be made, or the unit is left out ({reason})")


def made_all(make: Callable[[Factors], Made], samples: Sequence[Factors], unit: str, tokenizer: str) -> list[Made]:
    """Every sample of a unit. unit, tokenizer: their names. Raises NotMade at the first that cannot be made."""
    made = []
    for factors in samples:
        try:
            made.append(make(factors))
        except EpisodeError as error:
            raise NotMade(unit, factors, tokenizer, error) from None
    return made


def first_made(make: Callable[[int], Made], tries: int) -> list[Made]:
    """What can be made of the first `tries` samples, by number. Raises EpisodeError where none can."""
    made, failed = [], None
    for index in range(tries):
        try:
            made.append(make(index))
        except EpisodeError as error:
            failed = error
    if not made and failed is not None:
        raise failed
    return made
