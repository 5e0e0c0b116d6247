"""Ordered near-duplicates: every key occurs several times with different values, and one of a key's values is queried
by its number.

Source: Vodrahalli et al. 2024, Michelangelo, arXiv 2409.12640 (multi-round co-reference resolution: "the second poem
about tapirs"). Differs from it: one-line needles in a haystack instead of a conversation, exact match instead of
string similarity. RULER's niah_multivalue asks for all values of a key in any order; none of its tasks asks for one
by number.

    ... The value for falcon is 40719. ... The value for otter is 77301. ... The value for falcon is 22094. ...
    The second value for falcon is      -> " 22094"

All needles of all keys have independent places, drawn alike, and every number is queried equally often. The number
alone tells something: the first value of a key is often the first of all, the last the last. The stated chance is
that of the k-th value of some key, whichever: 1 / n_keys, which no place among all values exceeds. Any value is right
in 1 / (n_keys x repeats); a model that finds the key and cannot count scores 1 / repeats.
"""

from dataclasses import dataclass

import numpy as np

from lcprobe.errors import require
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.names import RUNNING
from lcprobe.tasks.parts.layout import Layout, Question, Sample
from lcprobe.tasks.parts.placement import make_needles
from lcprobe.tasks.text.formats import StringFormat

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
NEEDLE, TAIL, ASK_NTH = " The value for {key} is", ".", " The {nth} value for {key} is"


@dataclass(frozen=True)
class OrderedConfig:
    """Keys and how often each occurs. Formats and length are factors of the grid."""

    n_keys: int = 6
    """Keys in the context; one is queried. More than `repeats`, so that finding the key scores more than chance."""
    repeats: int = 3
    """Values of every key, each in a needle of its own."""
    digits: int = 7
    """Digits of keys and values that are numbers; hex has as many tokens."""
    word_pairs: bool = False
    """Words are adjective-noun pairs (34 thousand) instead of nouns (278)."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts out of bounds."""
        require(f"{at}.n_keys", self.n_keys, self.n_keys >= 2, ">= 2, or no key is looked up")
        require(f"{at}.repeats", self.repeats, 2 <= self.repeats <= len(ORDINALS), f"2 .. {len(ORDINALS)}")
        require(f"{at}.digits", self.digits, 1 <= self.digits <= 15, "1 .. 15")


class Ordered(Task[OrderedConfig]):
    """The generator. zero_distance: the target key's needles directly before the question. no_needle: none of them.
    wrong_key: the question is about an absent key, the old value counts. There is no depth: where the third value is
    follows from its being the third. The target key's needles come first, then those of the other keys.
    """

    Config = OrderedConfig
    name = "ordered"
    axes = Axes(haystack=RUNNING, depth=False)

    def string_format(self, kind: str, role: str) -> StringFormat:
        """See Task."""
        return StringFormat(kind, self.config.digits, self.config.word_pairs)

    def layout(self, sample: Sample) -> Layout:
        """See Task."""
        cfg, draw, formats, control = self.config, sample.draw, sample.factors.formats, sample.factors.control
        n_needles = cfg.n_keys * cfg.repeats
        unique = sample.unique(" ".join((NEEDLE, ASK_NTH, *ORDINALS)))
        key_form, value_form = self.string_format(formats.key, "key"), self.string_format(formats.value, "value")
        keys = unique.draw(key_form, cfg.n_keys + 1, draw("key", formats.key), "formats.key")
        values = unique.draw(value_form, n_needles, draw("value", formats.value), "formats.value", TAIL)
        asks = [NEEDLE.format(key=key) for key in keys[:-1] for _ in range(cfg.repeats)]
        needles = make_needles(sample.tokenizer, asks, values, TAIL)
        depths = sample.drawn_depths(n_needles).tolist()
        in_order = np.argsort(depths[: cfg.repeats], kind="stable").tolist()
        cuts = sample.cuts(needles, depths, in_order)
        number = sample.balanced(cfg.repeats)
        target = in_order[number]
        key, needle = keys[-1] if control == "wrong_key" else keys[0], needles[target]
        asks = [ASK_NTH.format(nth=nth, key=k) for nth in ORDINALS[: cfg.repeats] for k in keys[:-1]]
        others = [cut.needle.value for cut in cuts if cut.index != target]
        question = Question(
            key=f"{ORDINALS[number]} {key}",
            text=needle.text,
            ask=sample.tokenizer.piece(ASK_NTH.format(nth=ORDINALS[number], key=key)),
            answer=needle.value,
            longest=max(len(n.value) for n in needles),
            evidence=needle.evidence(target),
            others=others,
            longest_ask=max(map(len, sample.tokenizer.pieces(asks))),
            chance=1 / cfg.n_keys if len(cuts) == n_needles else 1 / (len(others) + 1),
        )
        return Layout(cuts, [question], f"{n_needles} needles", target=target)
