"""Variable tracking: chains of assignments scattered over a text, and one variable whose value follows from several of them.

Source: Hsieh et al. 2024, RULER, arXiv 2404.06654 (vt: one chain of five variables in repeated noise, "find all variables
that are assigned 12345"). There every name-like string is an answer: printing all of them scores 100. Here there is always
a second chain, and the value of a chain's last variable is asked for: one answer, right for one chain, so that all
assignments on the way must be followed (RULER's skill) and neither lists nor places help.

    ... VAR falcon is 40719; ... VAR acorn is VAR falcon; ... VAR almond is VAR acorn; ...
    VAR almond has the value          -> " 40719"

A chain's statements stand in the order of its hops. Depth is where the asked chain's first statement stands, the one with the
value; its other statements stand anywhere after it, and distractor chains are laid out alike from a depth of their own: over
an even spread of depths every chain looks the same, so that chance is 1 / chains. What remains is half a skill, not a cheat:
who finds the last statement and names the value that stands nearest before it is right in 30 % (4 hops) or 37 % (2 hops) where
chance is 25 %.

Controls. zero_distance: the asked chain stands directly before the question. no_needle: its first statement, the only one
with its value, is missing. wrong_key: a variable that was never assigned is asked. query_only: nothing but the question.
"""

from dataclasses import dataclass, replace

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
from lcprobe.tasks.names import RUNNING
from lcprobe.tasks.parts.placement import Cut, Needle, UniqueStrings, in_text, make_needles
from lcprobe.tasks.text.formats import StringFormat, check_format
from lcprobe.tasks.text.haystack import Materials

ASSIGN, LINK, TAIL, ASK = " VAR {name} is", "VAR {name}", ";", " VAR {name} has the value"
WORDING = ASSIGN + LINK + TAIL + ASK


@dataclass(frozen=True)
class VTConfig:
    """Variable tracking. Haystack, formats of names (key) and values, length and depth are factors of the grid."""

    chains: int = 4
    """Chains, the asked one included: at least one other, or printing the only value scores 1."""
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


class VT:
    """The generator: `episode(factors)` is a pure function of the config, the materials and the factors."""

    Config = VTConfig
    axes = Axes(haystack=RUNNING)
    needs_lookup = True

    def __init__(self, config: VTConfig, materials: Materials):
        self.config, self.materials = config, materials

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens (query_only: as long as its question and answer).

        Raises ConfigError for factors outside `axes`, EpisodeError for a length that is too short (naming the least), or
        formats that the tokenizer cannot join exactly.
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
        """The episode and where its pieces join."""
        cfg, tok, formats, control = self.config, self.materials.tokenizer, factors.formats, factors.control
        draw = Draws("vt", SUITE, factors.split, factors.index)
        stream = self.materials.stream(formats.haystack)
        offset = (draw("haystack").integer(len(stream)) + 101 * attempt) % len(stream)
        unused = UniqueStrings(tok, stream, offset, factors.length, WORDING)
        size = cfg.hops + 1  # statements of a chain
        names = unused.draw(self._form(formats.key), cfg.chains * size + 1, draw("key", formats.key), "formats.key")
        values = unused.draw(self._form(formats.value), cfg.chains, draw("value", formats.value), "formats.value")

        statements = self._statements(names, values)
        first_values = [statements[chain * size].value for chain in range(cfg.chains)]
        asked = names[-1] if control == "wrong_key" else names[cfg.hops]
        ask = tok.piece(ASK.format(name=asked))
        evidence = 0, len(statements[0].ask), len(statements[0].value)
        question = Question(asked, values[0], ask, first_values[0], EMPTY, evidence, first_values[1:], 1 / cfg.chains,
                            tuple(range(1, size)))  # fmt: skip

        depths = self._depths(draw, factors.depth)
        if control == "zero_distance":
            depths[:size] = [2.0 + step for step in range(size)]  # past 1: after all the others
        here = {"query_only": 0, "no_needle": len(statements) - 1}.get(control, len(statements))
        order = range(len(statements) - here, len(statements))
        before = [bos_piece(tok)]
        fixed = fixed_tokens(before, [statements[i].whole for i in order], [question])
        room = 0 if control == "query_only" else factors.length - fixed
        if room < 0:
            raise TooShort(factors.length, fixed, f"{cfg.chains} chains of {size} statements")
        start = stream.window(offset, room) if room else offset
        cuts = [Cut(i, depths[i], statements[i]) for i in order]
        context = in_text(stream, start, room, cuts)
        inner = {i: statements[i].joints for i in order}
        return assemble(before, context, [question], Haystack(start, room, room / len(stream)), inner)

    def _form(self, kind: str) -> StringFormat:
        return StringFormat(kind, self.config.digits, self.config.word_pairs)

    def _statements(self, names: list[str], values: list[str]) -> list[Needle]:
        """Chain by chain, the asked one first; in each, the value's statement first and then hop by hop."""
        size, said = self.config.hops + 1, []
        asks = [ASSIGN.format(name=name) for name in names[: size * len(values)]]
        for chain, value in enumerate(values):
            said += [value, *(LINK.format(name=name) for name in names[chain * size : (chain + 1) * size - 1])]
        return make_needles(self.materials.tokenizer, asks, said, TAIL)

    def _depths(self, draw: Draws, depth: float) -> list[float]:
        """Of every statement: a chain's first anywhere (the asked one's where it should be), the others spread after it."""
        drawn = draw("depth").uniform(self.config.chains * (self.config.hops + 1)).reshape(self.config.chains, -1)
        first, rest = drawn[:, :1].copy(), np.sort(drawn[:, 1:], axis=1)
        first[0] = depth
        return np.concatenate([first, first + (1 - first) * rest], axis=1).ravel().tolist()
