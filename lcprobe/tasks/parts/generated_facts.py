"""A small templated world of persons, things and places: its sentences, and a bank of them that fills any length.

After bAbI (Weston et al. 2015, arXiv 1502.05698, tasks 1 and 2) and BABILong (Kuratov et al. 2024, arXiv 2406.10149);
here nobody moves, so the latest place is not the answer, and every person and every thing has one place.

Places are a closed set of K labels, drawn per sample, all of the same number of tokens: a sentence of the bank has a
gap of that width, and a sample fills all gaps by one indexing operation.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from lcprobe.errors import EpisodeError
from lcprobe.seeds import Stream
from lcprobe.tasks.parts.layout import EMPTY
from lcprobe.tasks.parts.placement import Filled, Needle, make_needles
from lcprobe.tasks.text.formats import StringFormat, candidates, token_count
from lcprobe.tasks.text.tokenizer import Tokenizer, read_words

PERSONS, THINGS = StringFormat("persons"), StringFormat("words", pairs=True)
IS_IN = " {person} is in the"
IS_WITH = " The {thing} is with"
TAIL = "."
ASK_PLACE = {
    1: " Where is {entity}? {entity} is in the",
    2: " Where is the {entity}? The {entity} is in the",
}
FACTS_WORDING = "".join((IS_IN, IS_WITH, TAIL, *ASK_PLACE.values()))
N_OFFSETS = 1024
"""Sentences of a bank at which a sample may begin, whatever its length."""
BLOCK_ENTITIES = 32
"""Entities whose sentences are shuffled together, so that the two sentences of one are rarely neighbours."""


def place_of(tokenizer: Tokenizer, person: str, place: str) -> Needle:
    """The sentence that says where a person is."""
    return make_needles(tokenizer, [IS_IN.format(person=person)], [place], TAIL)[0]


def owner_of(tokenizer: Tokenizer, thing: str, person: str) -> Needle:
    """The sentence that says with whom a thing is."""
    return make_needles(tokenizer, [IS_WITH.format(thing=thing)], [person], TAIL)[0]


@lru_cache(maxsize=16)
def places_format(tokenizer: Tokenizer) -> StringFormat:
    """Places with the token count that most of the shipped ones have."""
    counts = Counter(token_count(tokenizer, place) for place in read_words("places"))
    return StringFormat("places", tokens=max(counts, key=lambda n: (counts[n], -n)))


class FactBank:
    """Sentences about other persons and things, tokenised once, with gaps for places; no name twice."""

    def __init__(self, tokenizer: Tokenizer, hops: int, *names: str):
        self._tokenizer, self._hops, self._width = tokenizer, hops, places_format(tokenizer).tokens or 1
        self._persons = candidates(PERSONS, Stream("bank persons", *names), tokenizer)
        self._things = candidates(THINGS, Stream("bank things", *names), tokenizer)
        self._names, self._blocks = names, 0
        self._lines_of: dict[str, list[int]] = {}
        self._ids, self._ends = EMPTY, np.array([0])
        self._gaps, self._turns = np.array([], dtype=np.int64), np.array([], dtype=np.int64)
        self._done = False
        example = next(candidates(places_format(tokenizer), Stream("bank place", *names), tokenizer))
        self._example = tokenizer.piece(" " + example)

    def run(self, offset: int, tokens: int, taken: Sequence[str], places: np.ndarray, turn: int) -> Filled:
        """Sentences of at most `tokens` tokens from number `offset` on, none with a name in `taken`.

        places: (K, width) ids of the sample's labels; turn: the label of the bank's first class. Raises EpisodeError
        when there are not enough names.
        """
        self._extend(N_OFFSETS, 0)
        first = offset % min(N_OFFSETS, len(self._gaps))
        # no more sentences than can be needed: names of `taken` drop out, each of at most 64 tokens
        most = int(self._ends[first]) + tokens + 64 * (len(taken) + 1)
        self._extend(0, most)
        n = len(self._gaps)
        last = int(np.searchsorted(self._ends, most))
        lines = np.arange(first, last if last <= n else first + n) % n
        hit = [line for name in taken for line in self._lines_of.get(name, ())]
        if hit:
            lines = lines[~np.isin(lines, hit)]
        ends = np.concatenate([[0], np.cumsum(self._ends[lines + 1] - self._ends[lines])])
        fit = int(np.searchsorted(ends, tokens, side="right")) - 1
        if fit == len(lines):
            raise EpisodeError(
                "length", f"more than {fit} sentences about others", "a shorter length: there are no more names"
            )
        lines, ends = lines[:fit], ends[: fit + 1]
        ids = np.concatenate([EMPTY, *self._pieces(lines)])
        gaps = self._gaps[lines]
        at = (ends[:-1] + gaps)[gaps >= 0]
        turns = (self._turns[lines[gaps >= 0]] + turn) % len(places)
        for i in range(self._width):
            ids[at + i] = places[turns, i]
        return Filled(ids, ends)

    def _pieces(self, lines: np.ndarray) -> list[np.ndarray]:
        runs = np.split(lines, np.flatnonzero(np.diff(lines) != 1) + 1) if len(lines) else []
        return [self._ids[self._ends[run[0]] : self._ends[run[-1] + 1]] for run in runs]

    def _extend(self, lines: int, tokens: int) -> None:
        """Grow to this many sentences and tokens, if there are enough names. New sentences are checked in a round
        trip.
        """
        added: list[np.ndarray] = []
        gaps: list[int] = []
        turns: list[int] = []
        size = int(self._ends[-1])
        while (len(self._gaps) + len(gaps) < lines or size < tokens) and not self._done:
            for ids, gap, names, turn in self._block():
                for name in names:
                    self._lines_of.setdefault(name, []).append(len(self._gaps) + len(gaps))
                added.append(ids)
                gaps.append(gap)
                turns.append(turn)
                size += len(ids)
        if added:
            last = self._ids[self._ends[-2] :] if len(self._ends) > 1 else EMPTY
            piece = np.concatenate(added)
            if not self._tokenizer.same_after_round_trip(np.concatenate([last, piece])):
                raise EpisodeError(
                    "data.tokenizer", "one that merges neighbouring sentences", "one that keeps words apart"
                )
            self._ids = np.concatenate([self._ids, piece])
            self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum([len(a) for a in added])])
            self._gaps = np.concatenate([self._gaps, np.array(gaps, dtype=np.int64)])
            self._turns = np.concatenate([self._turns, np.array(turns, dtype=np.int64)])

    def _block(self) -> list[tuple[np.ndarray, int, tuple[str, ...], int]]:
        """Shuffled sentences of a few entities: ids, where the gap is (-1: none), names, class of place."""
        tok, sentences = self._tokenizer, []
        # its own stream, so that the result does not depend on how the bank grew
        draw = Stream("bank order", *self._names, self._blocks)
        self._blocks += 1
        for _ in range(BLOCK_ENTITIES):
            person = next(self._persons, None)
            thing = next(self._things, None) if self._hops == 2 else ""
            if person is None or thing is None:
                self._done = True
                break
            ask = tok.piece(IS_IN.format(person=person))
            sentences.append((np.concatenate([ask, self._example, tok.piece(TAIL)]), len(ask), (person,)))
            if thing:
                sentences.append((owner_of(tok, thing, person).whole, -1, (person, thing)))
        order, turns = draw.permutation(len(sentences)), draw.integers(1 << 30, len(sentences)).tolist()
        return [(*sentences[i], turn) for i, turn in zip(order, turns, strict=True)]


fact_bank = lru_cache(maxsize=64)(FactBank)
"""The bank of these names, grown by all who use it."""
