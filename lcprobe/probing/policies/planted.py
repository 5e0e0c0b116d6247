"""Planted models: oracles with one known defect, scored as models are.

What the report should conclude about them is known beforehand, so that they test everything between a score and a
sentence. An oracle finds the value of a key with a probability that depends on its defect alone; otherwise, and where
the key that is asked for is not in the context, it guesses among the candidates of the question, or prints nothing
where the answer is the only candidate.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from lcprobe.probing.scoring import Item, Score, scored_text
from lcprobe.seeds import Stream
from lcprobe.tasks.text.tokenizer import Tokenizer

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
HitRate = Callable[[Item], float]
"""Probability that the target value is found."""
MAX_LINE = 48
"""Tokens before a value in which its key is."""


@dataclass(frozen=True)
class Planted:
    """An oracle. Random numbers depend on seed, episode and question: equal on every machine, and independent across
    samples.
    """

    hit_rate: HitRate
    tokenizer: Tokenizer
    seed: int = 0

    def score(self, items: list[Item]) -> list[Score]:
        """Scores of what the oracle prints."""
        return [scored_text(item, self._answer(item), self.tokenizer) for item in items]

    def _answer(self, item: Item) -> str:
        rng = Stream("planted", self.seed, item.episode.digest, item.query.start)
        if rng.uniform(1)[0] < self.hit_rate(item) and has_key(item, self.tokenizer):
            return item.query.answer
        choices = item.query.candidates
        return self.tokenizer.decode(choices[rng.integer(len(choices))]).strip() if len(choices) > 1 else ""


def has_key(item: Item, tokenizer: Tokenizer) -> bool:
    """Whether the target value is in the context, and is that of the key in the question."""
    needle = item.query.needle
    return needle is not None and item.query.key in tokenizer.decode(
        item.episode.ids[max(0, needle - MAX_LINE) : needle]
    )


def perfect(item: Item) -> float:
    """Finds everything."""
    return 1.0


def noise(p: float) -> HitRate:
    """Finds the value with probability p, wherever it is."""
    return lambda item: p


def sees_last(w: int, p: float = 1.0) -> HitRate:
    """Finds with probability p within the last w tokens before the answer; a value that ends earlier is not found."""
    return lambda item: p if _distance(item) <= w else 0.0


def blind_middle(p: float, left: float = 0.0) -> HitRate:
    """Finds with probability p, and `left` in the middle half of the context."""
    return lambda item: left if 1 / 4 <= item.episode.realised_depth <= 3 / 4 else p


def blind_to_uuids(p: float, left: float = 0.0) -> HitRate:
    """Finds with probability p, and `left` where the value is a UUID."""
    return lambda item: left if UUID.fullmatch(item.query.answer) else p


def forgetting(half_life: float, p: float = 1.0) -> HitRate:
    """Finds with probability p at no distance, and half as often after every half-life of tokens."""
    return lambda item: p * 2.0 ** (-_distance(item) / half_life)


def _distance(item: Item) -> float:
    return float("inf") if item.query.distance is None else item.query.distance
