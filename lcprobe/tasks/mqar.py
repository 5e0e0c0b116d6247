"""Associative recall with many queries: key-value pairs packed together, then text in which keys come back one by
one.

Source: Arora et al. 2023, Zoology, arXiv 2312.04927 (MQAR). Differs from it: text of any tokenizer instead of ids,
every string once, held-out text between the questions instead of random ids that may be keys. RULER's niah_multiquery
spreads its four pairs over the context and queries all of them at its end.

     amber-owl: 381; azure-fox: 907; plaid-gnu: 554; of the people,  azure-fox:       -> " 907"
    ; in this our land  amber-owl:                                                    -> " 381"

The distance from a pair to its question is drawn for each and recorded. Guessing among the values scores 1 / pairs
(later questions: 1 / those not queried yet).
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lcprobe.errors import require
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.names import RUNNING
from lcprobe.tasks.parts.distractor_lines import LineSample, line_bank
from lcprobe.tasks.parts.layout import EMPTY, Context, Layout, Question, Sample, TooShort
from lcprobe.tasks.parts.placement import Cut, Filled, Needle, Part, make_needles
from lcprobe.tasks.text.formats import StringFormat

PAIR, TAIL = " {key}:", ";"
POWER = 0.01
"""Gaps x have probability ~ x^(POWER - 1), as in Zoology."""


@dataclass(frozen=True)
class MQARConfig:
    """Pairs, questions and the gaps between them. Formats and length are factors of the grid."""

    pairs: int = 8
    """Key-value pairs, the queried ones included."""
    share: float | None = None
    """Tokens of all pairs as a share of the length, so that pairs grow with it; null: `pairs` of them."""
    n_queries: int = 4
    """Keys that are queried, one after the other."""
    gaps: Literal["power", "uniform"] = "power"
    """Where questions are after the pairs: most of them soon, or anywhere. The last one is at the episode's end."""
    digits: int = 7
    """Digits of keys and values that are numbers; hex has as many tokens."""
    word_pairs: bool = True
    """Words are adjective-noun pairs (34 thousand) instead of nouns (278)."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts that do not fit together."""
        require(f"{at}.n_queries", self.n_queries, self.n_queries >= 1, ">= 1")
        require(f"{at}.pairs", self.pairs, self.pairs >= self.n_queries, f">= n_queries ({self.n_queries})")
        require(f"{at}.share", self.share, self.share is None or 0 < self.share <= 1, "> 0 and <= 1, or null")
        require(f"{at}.digits", self.digits, 1 <= self.digits <= 15, "1 .. 15")


class MQAR(Task[MQARConfig]):
    """The generator. zero_distance: all other pairs, then text, then the queried pairs and their questions at once.
    no_needle: other pairs in place of the queried ones.
    """

    Config = MQARConfig
    name = "mqar"
    axes = Axes(haystack=RUNNING, controls=("none", "zero_distance", "no_needle"), depth=False, distance=False)

    def string_format(self, kind: str, role: str) -> StringFormat:
        """See Task."""
        return StringFormat(kind, self.config.digits, self.config.word_pairs)

    def layout(self, sample: Sample) -> Layout:
        """See Task. Raises EpisodeError for a format with too few strings for as many pairs."""
        cfg, tok, formats = self.config, sample.tokenizer, sample.factors.formats
        forms = self.string_format(formats.key, "key"), self.string_format(formats.value, "value")
        lines = line_bank(tok, *forms, PAIR, TAIL, PAIR + TAIL, *sample.names).sample(sample.draw)
        unique = sample.unique(PAIR + TAIL)
        # all at once, queried or not: chosen apart, they would be of two kinds where strings are few
        count = cfg.n_queries + (cfg.pairs if cfg.share is None else 0)
        keys, values = lines.keys(count, unique), lines.values(count, unique)
        # which pairs are queried must not show in the place of the first answer: the room of any of them
        longest_ask, longest = lines.longest(keys, values) if cfg.share is None else lines.longest_of_all
        spare = keys[cfg.n_queries :], values[cfg.n_queries :]
        keys, values = keys[: cfg.n_queries], values[: cfg.n_queries]
        needles = make_needles(tok, [PAIR.format(key=key) for key in keys], values, TAIL)
        cuts = [Cut(i, 0.0, n) for i, n in enumerate(needles)] if sample.factors.control != "no_needle" else []
        questions = [
            Question(
                key=key,
                text=needle.text,
                ask=needle.ask,
                answer=needle.value,
                longest=longest,
                tail=tok.piece(TAIL) if i < cfg.n_queries - 1 else EMPTY,
                evidence=needle.evidence(i),
                longest_ask=longest_ask,
            )
            for i, (key, needle) in enumerate(zip(keys, needles, strict=True))
        ]
        layout = Layout(cuts, questions)
        others = self._others(sample, layout, lines, spare, needles)
        return replace(
            layout,
            what=f"{len(others) + len(cuts)} pairs and {cfg.n_queries} questions",
            reserved=len(others.ids),
            fill=lambda room: self._fill(sample, layout, others, room),
        )

    def _others(
        self,
        sample: Sample,
        layout: Layout,
        lines: LineSample,
        spare: tuple[list[str], list[str]],
        needles: list[Needle],
    ) -> Filled:
        """The pairs that are not queried. Raises TooShort where the queried ones alone are more than their share."""
        cfg, length, n_shown = self.config, sample.factors.length, len(layout.cuts)
        if cfg.share is None:
            keys, values = spare
            return lines.some(keys[: cfg.pairs - n_shown], values[: cfg.pairs - n_shown])
        fixed, queried = sample.fixed_tokens(layout), sum(len(n.whole) for n in needles)
        if cfg.share * length < queried:
            needed = max(fixed, int(np.ceil(queried / cfg.share)))
            raise TooShort(length, needed, f"{cfg.n_queries} pairs in a share of {cfg.share:g}")
        tokens = min(int(cfg.share * length) - (queried if n_shown else 0), length - fixed)
        return lines.run(max(tokens, 0))

    def _fill(self, sample: Sample, layout: Layout, others: Filled, room: int) -> Context:
        """The pairs, then the text, in pieces between the questions."""
        shown, n_queries = [cut.needle for cut in layout.cuts], len(layout.questions)
        n_pairs, window = len(others) + len(shown), sample.window(room)
        text = sample.stream.take(window.start, room)
        together = sample.factors.control == "zero_distance"
        slots = list(range(len(others), n_pairs)) if together else sample.draw("slots").distinct(n_pairs, len(shown))
        parts = _packed(others, dict(zip(slots, layout.cuts, strict=True)))
        places = [0] * (n_queries + 1)  # of the questions in the text, and the text's end
        if together:
            parts = [(text, None), *parts] if room else parts
        else:
            far = np.sort(self._gaps(room, sample.draw("gaps").uniform(n_queries - 1)))
            places = [*(sample.stream.cut_near(window.start, room, int(at)) for at in far), room, room]
            parts = [*parts, (text[: places[0]], None)] if places[0] else parts
        questions = [
            question._replace(
                tail=np.concatenate([question.tail, text[places[i] : places[i + 1]]]),
                others=[needle.value for needle in shown[i + 1 :]] + list(others.values),
                chance=1.0 / max(1, n_pairs - i),
            )
            for i, question in enumerate(layout.questions)
        ]
        return Context(parts, window, questions)

    def _gaps(self, room: int, u: np.ndarray) -> np.ndarray:
        """Uniform draws -> tokens of text before a question, 0 .. room."""
        if self.config.gaps == "uniform" or not room:
            return u * room
        # the inverse of x^(POWER - 1)'s cumulative distribution
        return ((float(room + 1) ** POWER - 1) * u + 1) ** (1 / POWER) - 1


def _packed(others: Filled, at: dict[int, Cut]) -> list[Part]:
    """The pairs in order: those of `at` at their slots, the others in the rest."""
    parts: list[Part] = []
    numbers, done = np.arange(len(others)), 0
    for rank, slot in enumerate(sorted(at)):
        parts += [(piece, None) for piece in others.pieces(numbers[done : slot - rank])]
        done = slot - rank
        parts.append((at[slot].needle.whole, at[slot].index))
    return parts + [(piece, None) for piece in others.pieces(numbers[done:])]
