"""Variable tracking: chains of assignments scattered over a text, and one variable whose value follows from several
of them.

Source: Hsieh et al. 2024, RULER, arXiv 2404.06654 (vt: one chain of five variables in repeated noise, "find all
variables that are assigned 12345"). There every name-like string is an answer: printing all of them scores 100. Here
there is always a second chain, and the question is about the value of a chain's last variable: one answer, right for
one chain, so that all assignments on the way must be followed (RULER's skill) and neither lists nor places help.

    ... VAR falcon is 40719; ... VAR acorn is VAR falcon; ... VAR almond is VAR acorn; ...
    VAR almond has the value          -> " 40719"

A chain's statements are in the order of its hops. Depth is the place of the target chain's first statement, the one
with the value; its other statements are anywhere after it, and distractor chains are laid out alike from a depth of
their own: over an even spread of depths every chain looks the same, so that chance is 1 / chains. What remains is
half a skill, not a shortcut: finding the last statement and naming the nearest value before it is right in 30 % (4
hops) or 37 % (2 hops) where chance is 25 %.

Controls. zero_distance: the target chain is directly before the question. no_needle: its first statement, the only
one with its value, is missing. wrong_key: the question is about a variable that was never assigned. query_only:
nothing but the question.
"""

from dataclasses import dataclass

import numpy as np

from lcprobe.errors import require
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.names import RUNNING
from lcprobe.tasks.parts.layout import Layout, Question, Sample
from lcprobe.tasks.parts.placement import Needle, depths_of, make_needles
from lcprobe.tasks.text.formats import StringFormat

ASSIGN, LINK, TAIL, ASK_VALUE = " VAR {name} is", "VAR {name}", ";", " VAR {name} has the value"
VT_WORDING = ASSIGN + LINK + TAIL + ASK_VALUE


@dataclass(frozen=True)
class VTConfig:
    """Variable tracking. Haystack, formats of names (key) and values, length and depth are factors of the grid."""

    chains: int = 4
    """Chains, the target one included: at least one other, or printing the only value scores 1."""
    hops: int = 2
    """Assignments from variable to variable in a chain: it has hops + 1 statements."""
    digits: int = 5
    """Digits of values (and names) that are numbers; hex has as many tokens."""
    word_pairs: bool = False
    """Words are adjective-noun pairs (34 thousand) instead of nouns (278)."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts out of range."""
        require(f"{at}.chains", self.chains, 2 <= self.chains <= 16, "2 .. 16 (one of them a distractor at least)")
        require(f"{at}.hops", self.hops, 1 <= self.hops <= 16, "1 .. 16")
        require(f"{at}.digits", self.digits, 1 <= self.digits <= 15, "1 .. 15")


class VT(Task[VTConfig]):
    """The generator. Statements are numbered chain by chain, those of the target chain first."""

    Config = VTConfig
    name = "vt"
    axes = Axes(haystack=RUNNING)

    def string_format(self, kind: str, role: str) -> StringFormat:
        """See Task."""
        return StringFormat(kind, self.config.digits, self.config.word_pairs)

    def layout(self, sample: Sample) -> Layout:
        """See Task."""
        cfg, draw, formats = self.config, sample.draw, sample.factors.formats
        unique = sample.unique(VT_WORDING)
        size = cfg.hops + 1  # statements of a chain
        name_form, value_form = self.string_format(formats.key, "key"), self.string_format(formats.value, "value")
        names = unique.draw(name_form, cfg.chains * size + 1, draw("key", formats.key), "formats.key")
        values = unique.draw(value_form, cfg.chains, draw("value", formats.value), "formats.value")
        statements = self._statements(sample, names, values)
        first_values = [statements[chain * size].value for chain in range(cfg.chains)]
        last = names[cfg.hops : -1 : size]
        queried = names[-1] if sample.factors.control == "wrong_key" else names[cfg.hops]
        question = Question(
            key=queried,
            text=values[0],
            ask=sample.tokenizer.piece(ASK_VALUE.format(name=queried)),
            answer=first_values[0],
            longest=max(map(len, first_values)),
            evidence=statements[0].evidence(0),
            others=first_values[1:],
            longest_ask=max(map(len, sample.tokenizer.pieces([ASK_VALUE.format(name=name) for name in last]))),
            chance=1 / cfg.chains,
            via=tuple(range(1, size)),
        )
        cuts = sample.cuts(statements, self._depths(sample), range(size), removed=[0])
        return Layout(cuts, [question], f"{cfg.chains} chains of {size} statements")

    def _statements(self, sample: Sample, names: list[str], values: list[str]) -> list[Needle]:
        """Chain by chain, the target one first; in each, the value's statement first and then hop by hop."""
        size, assigned = self.config.hops + 1, []
        asks = [ASSIGN.format(name=name) for name in names[: size * len(values)]]
        for chain, value in enumerate(values):
            assigned += [value, *(LINK.format(name=name) for name in names[chain * size : (chain + 1) * size - 1])]
        return make_needles(sample.tokenizer, asks, assigned, TAIL)

    def _depths(self, sample: Sample) -> list[float]:
        """Depths of the statements: a chain's first as drawn (the target's at the sample's depth), the others spread
        after it.
        """
        cfg, factors = self.config, sample.factors
        drawn = sample.draw("depth").uniform(cfg.chains * (cfg.hops + 1)).reshape(cfg.chains, -1)
        first, rest = depths_of(factors.distance, drawn[:, :1].copy(), factors.length), np.sort(drawn[:, 1:], axis=1)
        first[0] = factors.depth
        return np.concatenate([first, first + (1 - first) * rest], axis=1).ravel().tolist()
