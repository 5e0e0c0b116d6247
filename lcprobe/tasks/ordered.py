"""Ordered near-duplicates: a key stands several times, each time with another value, and one of them is asked for by number.

Source: Vodrahalli et al. 2024, Michelangelo, arXiv 2409.12640 (multi-round co-reference resolution: "the second poem about
tapirs"). Differs from it: one-line needles in a haystack instead of a conversation, exact match instead of string similarity.
RULER's niah_multivalue asks for all values of a key in any order; no task of it asks for one by number.

    ... The value for falcon is 40719. ... The value for otter is 77301. ... The value for falcon is 22094. ...
    The second value for falcon is      -> " 22094"

All needles of all keys stand at places of their own, drawn alike, and every number is asked equally often. The number alone tells
something: the first value of a key is often the first of all, the last the last. The stated chance is that of the k-th value of
some key, whichever: 1 / n_keys, which no place among all values exceeds. Any value is right in 1 / (n_keys x repeats); a model
that finds the key and cannot count scores 1 / repeats.
"""

from dataclasses import dataclass, replace

import numpy as np

from lcprobe.errors import require
from lcprobe.seeds import Draws, permuted
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
from lcprobe.tasks.names import CONTROLS, RUNNING
from lcprobe.tasks.parts.placement import Cut, UniqueStrings, in_text, make_needles
from lcprobe.tasks.text.formats import StringFormat, check_format
from lcprobe.tasks.text.haystack import Materials

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
NEEDLE, TAIL, ASK = " The value for {key} is", ".", " The {nth} value for {key} is"


@dataclass(frozen=True)
class OrderedConfig:
    """Keys and how often each stands. Formats and length are factors of the grid."""

    n_keys: int = 6
    """Keys in the context; one is asked. More than `repeats`, so that finding the key scores more than chance."""
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


class Ordered:
    """The generator. zero_distance: the asked key's needles directly before the question. no_needle: none of them. wrong_key: an
    absent key is asked, the old value counts. There is no depth: where the third value stands follows from its being the third.
    """

    Config = OrderedConfig
    axes = Axes(haystack=RUNNING, controls=CONTROLS, depth=False)

    def __init__(self, config: OrderedConfig, materials: Materials):
        self.config, self.materials = config, materials

    @property
    def needs_lookup(self) -> bool:
        """Always: there are at least two values."""
        return True

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens (query_only: as long as its question and answer).

        Raises EpisodeError for a length that is too short (naming the least) and for unknown formats.
        """
        self.axes.check(factors)
        return certify(lambda attempt: self._build(factors, attempt), factors, self.materials.tokenizer)

    def shortest(self, factors: Factors) -> int:
        """The least length at which this sample exists. Raises EpisodeError for impossible formats."""
        self.axes.check(factors)
        for role, kind in (("key", factors.formats.key), ("value", factors.formats.value)):
            check_format(f"formats.{role}", self._form(kind), self.materials.tokenizer)
        return least_length(lambda: self._build(replace(factors, length=1), 0))

    def _build(self, factors: Factors, attempt: int) -> Built:
        cfg, tok, formats, control = self.config, self.materials.tokenizer, factors.formats, factors.control
        draw = Draws("ordered", SUITE, factors.split, factors.index)
        stream = self.materials.stream(formats.haystack)
        offset = (draw("haystack").integer(len(stream)) + 101 * attempt) % len(stream)
        n = cfg.n_keys * cfg.repeats
        unused = UniqueStrings(tok, stream, offset, factors.length, " ".join((NEEDLE, ASK, *ORDINALS)))
        keys = unused.draw(self._form(formats.key), cfg.n_keys + 1, draw("key", formats.key), "formats.key")
        values = unused.draw(self._form(formats.value), n, draw("value", formats.value), "formats.value", TAIL)
        asks = [
            NEEDLE.format(key=key) for key in keys[:-1] for _ in range(cfg.repeats)
        ]  # the asked key's are the first `repeats`
        needles = make_needles(tok, asks, values, TAIL)
        depths = draw("depth").uniform(n)
        if control == "zero_distance":
            depths[: cfg.repeats] += 1  # after all the haystack and all others
        # blocks of `repeats` samples ask every number once
        block, at = divmod(factors.index, cfg.repeats)
        number = permuted(at, cfg.repeats, "ordered", SUITE, factors.split, block)
        asked = int(np.argsort(depths[: cfg.repeats], kind="stable")[number])

        key, needle = keys[-1] if control == "wrong_key" else keys[0], needles[asked]
        ask = tok.piece(ASK.format(nth=ORDINALS[number], key=key))
        evidence = asked, len(needle.ask), len(needle.value)
        question = Question(f"{ORDINALS[number]} {key}", needle.text, ask, needle.value, EMPTY, evidence, (), 1 / n)
        absent = {"query_only": n, "no_needle": cfg.repeats}.get(control, 0)
        shown = range(absent, n)
        others = [needles[i].value for i in shown if i != asked]
        question = question._replace(others=others, chance=1 / (len(others) + 1) if absent else 1 / cfg.n_keys)

        before = [bos_piece(tok)]
        fixed = fixed_tokens(before, [needles[i].whole for i in shown], [question])
        room = 0 if control == "query_only" else factors.length - fixed
        if room < 0:
            raise TooShort(factors.length, fixed, f"{n} needles")
        start = stream.window(offset, room) if room else offset
        context = in_text(stream, start, room, [Cut(i, float(depths[i]), needles[i]) for i in shown])
        inner = {i: needle.joints for i, needle in enumerate(needles)}
        return assemble(before, context, [question], Haystack(start, room, room / len(stream)), inner, asked)

    def _form(self, kind: str) -> StringFormat:
        return StringFormat(kind, self.config.digits, self.config.word_pairs)
