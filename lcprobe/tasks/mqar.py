"""Associative recall with many queries: key-value pairs packed together, then text in which keys come back one by one.

Source: Arora et al. 2023, Zoology, arXiv 2312.04927 (MQAR). Differs from it: text of any tokenizer instead of ids, every
string once, held-out text between the questions instead of random ids that may be keys. RULER's niah_multiquery spreads its
four pairs over the context and asks for all of them at its end.

     amber-owl: 381; azure-fox: 907; plaid-gnu: 554; of the people,  azure-fox:       -> " 907"
    ; in this our land  amber-owl:                                                    -> " 381"

The distance from a pair to its question is drawn anew for each and recorded. Guessing among the values scores 1 / pairs (after
some are asked: 1 / those that are left).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lcprobe.errors import require
from lcprobe.seeds import Draws
from lcprobe.tasks.assembly import (
    EMPTY,
    Axes,
    Built,
    Haystack,
    Part,
    Question,
    TooShort,
    assemble,
    bos_piece,
    certify,
    fixed_tokens,
    least_length,
)
from lcprobe.tasks.episode import SUITE, Episode, Factors
from lcprobe.tasks.names import RUNNING
from lcprobe.tasks.parts.distractor_lines import LineBank, LineSample
from lcprobe.tasks.parts.placement import Filled, Needle, UniqueStrings, make_needles
from lcprobe.tasks.text.formats import StringFormat, check_format
from lcprobe.tasks.text.haystack import Materials

ASK, TAIL = " {key}:", ";"
POWER = 0.01
"""Gaps x have probability ~ x^(POWER - 1), as in Zoology."""


UNHEARD = 6
"""Digits of numbers that texts hardly hold."""


@dataclass(frozen=True)
class MQARConfig:
    """Pairs, questions and the gaps between them. Formats and length are factors of the grid."""

    pairs: int = 8
    """Key-value pairs, the asked ones included."""
    share: float | None = None
    """Tokens of all pairs as a share of the length, so that pairs grow with it; null: `pairs` of them."""
    n_queries: int = 4
    """Keys that are asked, one after the other."""
    gaps: Literal["power", "uniform"] = "power"
    """Where questions stand after the pairs: most of them soon, or anywhere. The last one ends the episode."""
    digits: int = 7
    """Digits of keys and values that are numbers; hex has as many tokens."""
    word_pairs: bool = True
    """Words are adjective-noun pairs (34 thousand) instead of nouns (278)."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts that do not fit together."""
        require(f"{at}.n_queries", self.n_queries, self.n_queries >= 1, ">= 1")
        require(f"{at}.pairs", self.pairs, self.pairs >= self.n_queries, f">= n_queries ({self.n_queries})")
        require(f"{at}.share", self.share, self.share is None or 0 < self.share <= 1, "more than 0 .. 1, or null")
        require(f"{at}.digits", self.digits, 1 <= self.digits <= 15, "1 .. 15")
        if (
            self.share is not None
        ):  # that many pairs are not compared with the text: only the asked ones would be absent from it
            require(
                f"{at}.digits",
                self.digits,
                self.digits >= UNHEARD,
                f">= {UNHEARD} with a share: texts hold shorter numbers",
            )
            require(
                f"{at}.word_pairs", self.word_pairs, self.word_pairs, "true with a share: texts hold single words"
            )


class MQAR:
    """The generator. zero_distance: all other pairs, then text, then the asked pairs and their questions at once. no_needle:
    other pairs stand where the asked ones stood.
    """

    Config = MQARConfig
    axes = Axes(haystack=RUNNING, controls=("none", "zero_distance", "no_needle"), depth=False)

    def __init__(self, config: MQARConfig, materials: Materials):
        self.config, self.materials = config, materials
        self._banks: dict[tuple[str, str, str], LineBank] = {}

    @property
    def needs_lookup(self) -> bool:
        """Whether there is more than one pair."""
        return self.config.share is not None or self.config.pairs > 1

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens. Raises EpisodeError for a length that is too short (naming the
        least), unknown formats, or a format with too few strings for as many pairs.
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
        cfg, tok, formats = self.config, self.materials.tokenizer, factors.formats
        draw = Draws("mqar", SUITE, factors.split, factors.index)
        stream = self.materials.stream(formats.haystack)
        offset = (draw("haystack").integer(len(stream)) + 101 * attempt) % len(stream)
        unused = UniqueStrings(tok, stream, offset, factors.length, ASK + TAIL)
        hand = self._bank(factors).sample(draw)
        # all at once, asked or not: chosen apart, they would be of two kinds where strings are few
        count = cfg.n_queries + (cfg.pairs if cfg.share is None else 0)
        keys, values = hand.keys(count, unused), hand.values(count, unused)
        spare = keys[cfg.n_queries :], values[cfg.n_queries :]
        keys, values = keys[: cfg.n_queries], values[: cfg.n_queries]
        needles = make_needles(tok, [ASK.format(key=key) for key in keys], values, TAIL)
        shown = needles if factors.control != "no_needle" else []

        before, tails = [bos_piece(tok)], [tok.piece(TAIL)] * (cfg.n_queries - 1) + [EMPTY]
        asked = [
            Question(k, v, n.ask, n.value, tail, (i, len(n.ask), len(n.value)), (), 1.0)
            for i, (k, v, n, tail) in enumerate(zip(keys, values, needles, tails, strict=True))
        ]
        fixed = fixed_tokens(before, [n.whole for n in shown], asked)
        lines = self._others(factors, hand, spare, needles, len(shown), fixed)
        room = factors.length - fixed - len(lines.ids)
        n = len(lines) + len(shown)
        if room < 0:
            raise TooShort(factors.length, factors.length - room, f"{n} pairs and {cfg.n_queries} questions")
        start = stream.window(offset, room) if room else offset
        text = stream.take(start, room)

        together = factors.control == "zero_distance"
        slots = list(range(len(lines), n)) if together else draw("slots").distinct(n, len(shown))
        context = _packed(lines, dict(zip(slots, shown, strict=True)) if shown else {}, needles)
        places = [0] * (cfg.n_queries + 1)  # of the questions in the text, and the text's end
        if together:
            context = [(text, None), *context] if room else context
        else:
            far = np.sort(self._gaps(room, draw("gaps").uniform(cfg.n_queries - 1)))
            places = [*(stream.cut_near(start, room, int(at)) for at in far), room, room]
            context = [*context, (text[: places[0]], None)] if places[0] else context
        for i, q in enumerate(asked):
            others = [other.value for other in shown[i + 1 :]] + list(lines.values)
            tail = np.concatenate([q.tail, text[places[i] : places[i + 1]]])
            asked[i] = q._replace(tail=tail, others=others, chance=1.0 / max(1, n - i))
        inner = {i: needle.joints for i, needle in enumerate(needles)}
        return assemble(before, context, asked, Haystack(start, room, room / len(stream)), inner)

    def _bank(self, factors: Factors) -> LineBank:
        name = (factors.formats.key, factors.formats.value, factors.split)
        if name not in self._banks:
            tok, forms = self.materials.tokenizer, (self._form(name[0]), self._form(name[1]))
            self._banks[name] = LineBank(tok, *forms, ASK, TAIL, ASK + TAIL, "mqar", SUITE, name[2])
        return self._banks[name]

    def _others(
        self,
        factors: Factors,
        hand: LineSample,
        spare: tuple[list[str], list[str]],
        needles: list[Needle],
        shown: int,
        fixed: int,
    ) -> Filled:
        """The pairs that are not asked. Raises TooShort where the asked ones alone are more than their share."""
        cfg = self.config
        if cfg.share is None:
            keys, values = spare
            return hand.some(keys[: cfg.pairs - shown], values[: cfg.pairs - shown])
        own = sum(len(n.whole) for n in needles)
        if cfg.share * factors.length < own:
            needed = max(fixed, int(np.ceil(own / cfg.share)))
            raise TooShort(factors.length, needed, f"{cfg.n_queries} pairs in a share of {cfg.share:g}")
        tokens = min(int(cfg.share * factors.length) - (own if shown else 0), factors.length - fixed)
        return hand.run(max(tokens, 0))

    def _gaps(self, room: int, u: np.ndarray) -> np.ndarray:
        """Uniform draws -> tokens of text before a question, 0 .. room."""
        if self.config.gaps == "uniform" or not room:
            return u * room
        return ((float(room + 1) ** POWER - 1) * u + 1) ** (
            1 / POWER
        ) - 1  # the inverse of x^(POWER - 1)'s cumulative

    def _form(self, kind: str) -> StringFormat:
        return StringFormat(kind, self.config.digits, self.config.word_pairs)


def _packed(lines: Filled, at: dict[int, Needle], needles: list[Needle]) -> list[Part]:
    """The pairs in order: those of `at` at their slots, the others in the rest."""
    parts: list[Part] = []
    numbers, done = np.arange(len(lines)), 0
    for number, slot in enumerate(sorted(at)):
        parts += [(piece, None) for piece in lines.pieces(numbers[done : slot - number])]
        done = slot - number
        parts.append((at[slot].whole, next(i for i, n in enumerate(needles) if n is at[slot])))
    return parts + [(piece, None) for piece in lines.pieces(numbers[done:])]
