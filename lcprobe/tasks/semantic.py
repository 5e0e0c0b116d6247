"""Needles that are found by what they mean: the question shares no content word with the needle that answers it.

Source: Modarressi et al. 2025, NoLiMa, arXiv 2502.05167. Differs from it: nine relations of common knowledge instead of a few
hand-made needle groups, distractors of the same relation, a closed set of names as answers, exact match without an instruction.
RULER's questions repeat the needle's words, so that literal match is enough.

    ... Dagmar rented a flat in Lisbon. ... Tobias rented a flat in Oslo. ...   The resident of Portugal is     -> " Dagmar"

The facts are `assets/relations.txt`: one line a fact (city and country, tool and trade, ...), and no country is asked for while
two of its cities are in the context. Guessing among the names scores 1 / n_needles. A model that scores on `niah` with as many
keys and not here finds strings, not meanings, or does not know the facts: zero_distance tells which.
"""

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import numpy as np

from lcprobe.errors import require
from lcprobe.seeds import Draws
from lcprobe.tasks.assembly import (
    EMPTY,
    Axes,
    Built,
    Haystack,
    Question,
    TooShort,
    assemble,
    bos_piece,
    certify,
    fixed_tokens,
    least_length,
)
from lcprobe.tasks.episode import SUITE, Episode, Factors
from lcprobe.tasks.names import CONTROLS, NOTHING, RUNNING
from lcprobe.tasks.parts.placement import WIDEST_GUARD, Cut, Needle, UniqueStrings, in_text
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import Tokenizer, read_words

MOST_NEEDLES = 8
"""Every relation has facts for as many needles, and one more for an absent key."""


class Relation(NamedTuple):
    """Wording of needle and question, each with a place for a fact, and the facts: (in the needle, asked for)."""

    name: str
    needle: str
    ask: str
    facts: tuple[tuple[str, str], ...]


@lru_cache(maxsize=1)
def relations() -> tuple[Relation, ...]:
    """The shipped relations."""
    text = (resources.files("lcprobe.tasks") / "assets" / "relations.txt").read_text(encoding="utf-8")
    found: list[Relation] = []
    for line in text.splitlines():
        fields = tuple(field.strip() for field in line.split("|"))
        if len(fields) == 3:
            found.append(Relation(fields[0], f" {fields[1]}", f" {fields[2]}", ()))
        else:
            found[-1] = found[-1]._replace(facts=(*found[-1].facts, (fields[0], fields[1])))
    return tuple(found)


@dataclass(frozen=True)
class SemanticConfig:
    """Needles of one relation. Haystack, length and depth are factors of the grid."""

    n_needles: int = 4
    """Needles in the context, each with a name of its own. With 1, printing the only name scores 1.0."""

    def check(self, at: str) -> None:
        """Raises ConfigError for more needles than a relation has facts."""
        require(f"{at}.n_needles", self.n_needles, 1 <= self.n_needles <= MOST_NEEDLES, f"1 .. {MOST_NEEDLES}")


class Semantic:
    """The generator. Controls as in `niah`; wrong_key: a fact that no needle holds is asked for, the old name counts."""

    Config = SemanticConfig
    axes = Axes(haystack=RUNNING, key=(NOTHING,), value=(NOTHING,), controls=CONTROLS)

    def __init__(self, config: SemanticConfig, materials: Materials):
        self.config, self.materials = config, materials

    @property
    def needs_lookup(self) -> bool:
        """Whether copying the only name does not score 1."""
        return self.config.n_needles > 1

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens (query_only: as long as its question and answer).

        Raises EpisodeError for a length that is too short (naming the least), and where a haystack holds nearly all names.
        """
        self.axes.check(factors)
        return certify(lambda attempt: self._build(factors, attempt), factors, self.materials.tokenizer)

    def shortest(self, factors: Factors) -> int:
        """The least length at which this sample exists."""
        self.axes.check(factors)
        return least_length(lambda: self._build(replace(factors, length=1), 0))

    def _build(self, factors: Factors, attempt: int) -> Built:
        n, tok, control = self.config.n_needles, self.materials.tokenizer, factors.control
        draw = Draws("semantic", SUITE, factors.split, factors.index)
        stream = self.materials.stream(factors.formats.haystack)
        offset = (draw("haystack").integer(len(stream)) + 101 * attempt) % len(stream)
        relation = draw("relation").pick(relations())
        facts = _facts(relation, n + 1, draw, stream, offset)  # the first is asked for, the last is in no needle
        wording = " ".join((relation.needle, relation.ask, *sum(facts, ())))
        unused = UniqueStrings(tok, stream, offset, factors.length, wording)
        names = unused.choose(read_words("names"), n, draw("names"), "formats.haystack")
        needles = [
            _needle(tok, name, relation.needle.format(fact))
            for name, (fact, _) in zip(names, facts[:-1], strict=True)
        ]

        depths = [factors.depth, *draw("depth").uniform(n)[1:].tolist()]
        if control == "zero_distance":
            depths[0] = 2.0  # past 1: after all the others
        shown = range(n if control == "query_only" else 1 if control == "no_needle" else 0, n)
        asked = facts[-1 if control == "wrong_key" else 0][1]
        others = [needles[i].value for i in shown if i != 0]
        ask, answer = tok.piece(relation.ask.format(asked)), needles[0].value
        question = Question(asked, names[0], ask, answer, EMPTY, (0, 0, len(answer)), others, 1 / (len(others) + 1))

        before = [bos_piece(tok)]
        fixed = fixed_tokens(before, [needles[i].whole for i in shown], [question])
        room = 0 if control == "query_only" else factors.length - fixed
        if room < 0:
            raise TooShort(factors.length, fixed, f"{len(shown)} needles")
        start = stream.window(offset, room) if room else offset
        context = in_text(stream, start, room, [Cut(i, depths[i], needles[i]) for i in shown])
        inner = {i: (needle.joints[1],) for i, needle in enumerate(needles)}
        return assemble(before, context, [question], Haystack(start, room, room / len(stream)), inner)


def _needle(tokenizer: Tokenizer, name: str, rest: str) -> Needle:
    value = tokenizer.piece(" " + name)
    return Needle(np.concatenate([value, tokenizer.piece(rest)]), EMPTY, value, name)


def _facts(relation: Relation, n: int, draw: Draws, stream: TokenStream, offset: int) -> list[tuple[str, str]]:
    """n facts with different second words, those first of which the haystack says nothing.

    A text of many pages mentions most countries. It has no names in it, so that the question still has one answer.
    """
    order = [relation.facts[i] for i in draw("facts").permutation(len(relation.facts))]

    def said(fact: tuple[str, str]) -> int:
        return -min(WIDEST_GUARD, *(stream.free_run(word, offset) for word in fact))

    chosen: dict[str, tuple[str, str]] = {}
    for fact in sorted(order, key=said):  # stable: among equal ones the earlier drawn
        chosen.setdefault(fact[1], fact)
    # which of them is asked for is drawn, lest the rarest always be
    return [list(chosen.values())[:n][i] for i in draw("asked").permutation(n)]
