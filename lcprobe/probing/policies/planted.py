"""Planted models: oracles with one known defect, behind the protocol that models are scored through.

What the report says of them is known beforehand, so that they are the test of everything between a score and a sentence. An
oracle finds the asked value with a probability that depends on its defect alone; where it does not find it, it guesses among
the candidates of the question, or prints nothing where there is no other than the answer.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from lcprobe.probing.scoring import Item, Score, scored_text
from lcprobe.seeds import Stream
from lcprobe.tasks.text.tokenizer import Tokenizer

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
Finds = Callable[[Item], float]
"""Probability that the asked value is found."""


@dataclass(frozen=True)
class Planted:
    """An oracle. Draws are by seed, episode and question: the same on every machine, and independent over samples."""

    finds: Finds
    tokenizer: Tokenizer
    seed: int = 0

    def score(self, items: list[Item]) -> list[Score]:
        """Scores of what the oracle prints."""
        return [scored_text(item, self._says(item), self.tokenizer) for item in items]

    def _says(self, item: Item) -> str:
        draw = Stream("planted", self.seed, item.episode.digest, item.query.start)
        if draw.uniform(1)[0] < self.finds(item):
            return item.query.answer
        choices = item.query.candidates
        return self.tokenizer.decode(choices[draw.integer(len(choices))]).strip() if len(choices) > 1 else ""


def perfect(item: Item) -> float:
    """Finds everything."""
    return 1.0


def noise(p: float) -> Finds:
    """Finds the value with probability p, wherever it stands."""
    return lambda item: p


def window(w: int, p: float = 1.0) -> Finds:
    """Sees the last w tokens before the answer: a value whose last token is farther away is not found."""
    return lambda item: p if _distance(item) <= w else 0.0


def blind_middle(p: float, left: float = 0.0) -> Finds:
    """Finds with probability p, and `left` in the middle third of the context."""
    return lambda item: left if 1 / 3 <= item.episode.realised_depth <= 2 / 3 else p


def blind_to_uuids(p: float, left: float = 0.0) -> Finds:
    """Finds with probability p, and `left` where the value is a UUID."""
    return lambda item: left if UUID.fullmatch(item.query.answer) else p


def forgetting(half_life: float, p: float = 1.0) -> Finds:
    """Finds with probability p at no distance, and half as often after every half-life of tokens."""
    return lambda item: p * 2.0 ** (-_distance(item) / half_life)


def _distance(item: Item) -> float:
    return float("inf") if item.query.distance is None else item.query.distance
