"""Needles that are found by their meaning: the question shares no content word with the needle that answers it.

Source: Modarressi et al. 2025, NoLiMa, arXiv 2502.05167. Differs from it: nine relations of common knowledge instead
of a few hand-made needle groups, distractors of the same relation, a closed set of names as answers, exact match
without an instruction. RULER's questions repeat the needle's words, so that literal match is enough.

    ... Dagmar rented a flat in Lisbon. ... Tobias rented a flat in Oslo. ...
    The resident of Portugal is   -> " Dagmar"

The facts are `assets/relations.txt`: one fact per line (city and country, tool and trade, ...), and no country is
queried while two of its cities are in the context. Guessing among the names scores 1 / n_needles. A model that scores
on `niah` with as many keys and not here finds strings, not meanings, or does not know the facts: zero_distance tells
which.
"""

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import NamedTuple

import numpy as np

from lcprobe.errors import require
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.names import NOTHING, RUNNING
from lcprobe.tasks.parts.layout import EMPTY, Layout, Question, Sample
from lcprobe.tasks.parts.placement import Needle
from lcprobe.tasks.text.tokenizer import Tokenizer, read_words

MAX_NEEDLES = 8
"""Every relation has facts for as many needles, and one more for an absent key."""


class Relation(NamedTuple):
    """Wording of needle and question, each with a place for a fact, and the facts: (in the needle, in the
    question)."""

    name: str
    needle: str
    ask: str
    facts: tuple[tuple[str, str], ...]


@lru_cache(maxsize=1)
def relations() -> tuple[Relation, ...]:
    """The shipped relations."""
    text = (resources.files("lcprobe.tasks") / "assets" / "relations.txt").read_text(encoding="utf-8")
    shipped: list[Relation] = []
    for line in text.splitlines():
        fields = tuple(field.strip() for field in line.split("|"))
        if len(fields) == 3:
            shipped.append(Relation(fields[0], f" {fields[1]}", f" {fields[2]}", ()))
        else:
            shipped[-1] = shipped[-1]._replace(facts=(*shipped[-1].facts, (fields[0], fields[1])))
    return tuple(shipped)


@dataclass(frozen=True)
class SemanticConfig:
    """Needles of one relation. Haystack, length and depth are factors of the grid."""

    n_needles: int = 4
    """Needles in the context, each with a name of its own. With 1, printing the only name scores 1.0."""

    def check(self, at: str) -> None:
        """Raises ConfigError for more needles than a relation has facts."""
        require(f"{at}.n_needles", self.n_needles, 1 <= self.n_needles <= MAX_NEEDLES, f"1 .. {MAX_NEEDLES}")


class Semantic(Task[SemanticConfig]):
    """The generator. Controls as in `niah`; wrong_key: the question is about a fact that is in no needle, the old
    name counts.
    """

    Config = SemanticConfig
    name = "semantic"
    axes = Axes(haystack=RUNNING, key=(NOTHING,), value=(NOTHING,))

    def layout(self, sample: Sample) -> Layout:
        """See Task. Raises EpisodeError where the haystack contains nearly all names."""
        n, tok = self.config.n_needles, sample.tokenizer
        relation = sample.draw("relation").pick(relations())
        facts = _facts(relation, n + 1, sample)  # the first is the target, the last is in no needle
        unique = sample.unique(" ".join((relation.needle, relation.ask, *sum(facts, ()))))
        names = unique.choose(read_words("names"), n, sample.draw("names"), "formats.haystack")
        needles = [
            _needle(tok, name, relation.needle.format(fact))
            for name, (fact, _) in zip(names, facts[:-1], strict=True)
        ]
        cuts = sample.cuts(needles, sample.depths(n), [0])
        others = [cut.needle.value for cut in cuts if cut.index != 0]
        key = facts[-1 if sample.factors.control == "wrong_key" else 0][1]
        question = Question(
            key=key,
            text=names[0],
            ask=tok.piece(relation.ask.format(key)),
            answer=needles[0].value,
            longest=max(len(needle.value) for needle in needles),
            evidence=needles[0].evidence(0),
            others=others,
            longest_ask=max(map(len, tok.pieces([relation.ask.format(fact) for _, fact in facts[:-1]]))),
            chance=1 / (len(others) + 1),
        )
        return Layout(cuts, [question], f"{len(cuts)} needles")


def _needle(tokenizer: Tokenizer, name: str, rest: str) -> Needle:
    value = tokenizer.piece(" " + name)
    return Needle(np.concatenate([value, tokenizer.piece(rest)]), EMPTY, value, name)


def _facts(relation: Relation, n: int, sample: Sample) -> list[tuple[str, str]]:
    """n facts with different second words, preferably ones that neither the haystack nor the corpus mentions.

    A text of many pages mentions most countries. It has no names in it, so that the question still has one answer.
    """
    order = [relation.facts[i] for i in sample.draw("facts").permutation(len(relation.facts))]

    def mentioned(fact: tuple[str, str]) -> int:
        return -min(place.free(word) for place in sample.places for word in fact)

    chosen: dict[str, tuple[str, str]] = {}
    for fact in sorted(order, key=mentioned):  # stable: among equal ones the earlier drawn
        chosen.setdefault(fact[1], fact)
    # which of them is the target is drawn, or the least mentioned always would be
    return [list(chosen.values())[:n][i] for i in sample.draw("asked").permutation(n)]
