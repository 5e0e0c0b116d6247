"""Copying: a string of words somewhere in the context, to be said again in full, or from a drawn n-gram on.

Source: Jelassi et al. 2024, arXiv 2402.01032 (copying; n-gram look-up). Differs from it: text of any tokenizer, the string inside
a haystack at an exact depth, as long as asked for (`words`) or a share of the length (`share`). RULER has no such task.

    all      ... States Words: owl fig jay fig owl jay. of the ... Again:               ->  " owl fig jay fig owl jay"
    gram     ... States Words: owl fig jay fig owl jay. of the ... Again: owl fig       ->  " jay"

all: nothing is looked up, the one string of the context is the answer (chance 1, as for a single needle); a miss anywhere is a
miss, so token accuracy says how far a model gets. gram: `gram` different words that stand once in this order, anywhere in the
string. All words stand equally often, so that the next one is any that is not in the gram, equally likely (chance 1 / these).
The last word of the gram alone leaves as many choices as it has occurrences.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lcprobe.errors import EpisodeError, require
from lcprobe.seeds import Draws, Stream
from lcprobe.tasks.assembly import (
    EMPTY,
    MAX_JOINTS,
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
from lcprobe.tasks.formats import StringFormat, check_format
from lcprobe.tasks.haystack import Materials
from lcprobe.tasks.names import NOTHING, RUNNING
from lcprobe.tasks.placing import Cut, Needle, Unused, in_text, joined

OPEN, CLOSE, CUE = " Words:", ".", " Again:"
REPAIRS = 32
"""Rounds in which second occurrences of a gram are broken up."""


@dataclass(frozen=True)
class CopyingConfig:
    """The string and what is asked of it. The words' format, haystack, length and depth are factors of the grid."""

    ask: Literal["all", "gram"] = "all"
    """The whole string, or the word after a gram."""
    words: int = 16
    """Words of the string."""
    share: float | None = None
    """Tokens of string and answer as a share of the length, so that the string grows with it; null: `words` of them."""
    vocabulary: int = 32
    """Different words at most. For gram each stands equally often, so that of more words only a multiple of this is taken."""
    gram: int = 2
    """Words of a gram."""
    digits: int = 4
    """Digits of words that are numbers; hex has as many tokens."""
    word_pairs: bool = False
    """Words are adjective-noun pairs (34 thousand) instead of nouns (278, of which a long text may hold most)."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts that do not fit together."""
        require(f"{at}.gram", self.gram, self.gram >= 1, ">= 1")
        require(f"{at}.vocabulary", self.vocabulary, self.vocabulary >= self.gram + 2, f">= gram + 2 ({self.gram + 2})")
        require(f"{at}.words", self.words, self.words >= self.gram + 2, f">= gram + 2 ({self.gram + 2})")
        require(f"{at}.share", self.share, self.share is None or 0 < self.share <= 1, "more than 0 .. 1, or null")
        require(f"{at}.digits", self.digits, 1 <= self.digits <= 15, "1 .. 15")


class Copying:
    """The generator. zero_distance: the string directly before the question. no_needle: haystack instead of the string."""

    Config = CopyingConfig
    axes = Axes(haystack=RUNNING, key=(NOTHING,), controls=("none", "zero_distance", "no_needle", "query_only"))

    def __init__(self, config: CopyingConfig, materials: Materials):
        self.config, self.materials = config, materials

    @property
    def needs_lookup(self) -> bool:
        """Whether a gram is looked up."""
        return self.config.ask == "gram"

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens (query_only: as long as its question and answer).

        Raises EpisodeError for a length that is too short (naming the least), for unknown formats, and for a gram that is
        too short to stand only once.
        """
        self.axes.check(factors)
        return certify(lambda attempt: self._build(factors, attempt), factors, self.materials.tokenizer)

    def shortest(self, factors: Factors) -> int:
        """The least length at which this sample exists. Raises EpisodeError for impossible formats."""
        self.axes.check(factors)
        check_format("formats.value", self._form(factors), self.materials.tokenizer)
        return least_length(lambda: self._build(replace(factors, length=1), 0))

    def _build(self, factors: Factors, attempt: int) -> Built:
        cfg, tok, control = self.config, self.materials.tokenizer, factors.control
        draw = Draws("copying", SUITE, factors.split, factors.index)
        stream = self.materials.stream(factors.formats.haystack)
        offset = (draw("haystack").integer(len(stream)) + 101 * attempt) % len(stream)
        unused = Unused(tok, stream, offset, factors.length, OPEN + CLOSE + CUE)
        different = cfg.vocabulary if cfg.share is not None else min(cfg.vocabulary, cfg.words)
        words = unused.draw(self._form(factors), different, draw("value", factors.formats.value), "formats.value", CLOSE)
        units = tok.pieces([" " + word for word in words])
        order = self._order(factors, units, draw("order"))

        before, opening, close, cue = [bos_piece(tok)], tok.piece(OPEN), tok.piece(CLOSE), tok.piece(CUE)
        if cfg.ask == "all":
            string = answer = joined(units, order)
            text = " ".join(np.array(words, dtype=object)[order])
            question = Question(CUE.strip(), text, cue, answer, EMPTY, (0, len(opening), len(answer)), (), 1.0)
        else:
            *gram, next_ = draw("gram").distinct(different, cfg.gram + 1)
            begin = draw("place").integer(len(order) - cfg.gram)
            order = _with_gram(order, [*gram, next_], begin, draw)
            string, cue = joined(units, order), np.concatenate([cue, joined(units, np.array(gram))])
            ahead = len(opening) + len(joined(units, order[: begin + cfg.gram]))
            others = [unit for i, unit in enumerate(units) if i not in (*gram, next_)]
            key, evidence = " ".join(words[i] for i in gram), (0, ahead, len(units[next_]))
            question = Question(key, words[next_], cue, units[next_], EMPTY, evidence, others, 1 / (len(others) + 1))
        needle = Needle(np.concatenate([opening, string, close]), opening, string, question.text)

        shown = control in ("none", "zero_distance")
        fixed = fixed_tokens(before, [needle.whole] if shown else [], [question])
        room = 0 if control == "query_only" else factors.length - fixed
        if room < 0:
            raise TooShort(factors.length, fixed, f"a string of {len(string)} tokens and its question")
        start = stream.window(offset, room) if room else offset
        cuts = [Cut(0, 1.0 if control == "zero_distance" else factors.depth, needle)] if shown else []
        context = in_text(stream, start, room, cuts)
        every = max(16, len(string) // MAX_JOINTS)
        inner = {0: [*range(len(opening), len(needle.whole), every), len(needle.whole) - len(close)]}
        return assemble(before, context, [question], Haystack(start, room, room / len(stream)), inner)

    def _order(self, factors: Factors, units: list[np.ndarray], draw: Stream) -> np.ndarray:
        """Words by number, in random order. Raises TooShort where their share of the length holds too few."""
        cfg, sizes = self.config, np.array([len(unit) for unit in units])
        n, most = len(units), int(sizes.max())
        if cfg.share is None:
            rounds = -(-cfg.words // n) if cfg.ask == "all" else cfg.words // n
            return np.tile(np.arange(n), rounds)[draw.shuffle(n * rounds)][: cfg.words]
        piece = self.materials.tokenizer.piece
        wording = 1 + sum(len(piece(p)) for p in (OPEN, CLOSE, CUE))  # and BOS
        room = min(cfg.share * factors.length + 1e-6, factors.length - wording)
        # all: the string twice. gram: the string once, and once more the gram and the answer
        copies, beside, least = (2, 0, most) if cfg.ask == "all" else (1, (cfg.gram + 1) * most, int(sizes.sum()))
        if room < copies * least + beside:
            tokens = copies * least + beside
            needed = max(int(np.ceil(tokens / cfg.share - 1e-6)), tokens + wording)
            raise TooShort(factors.length, needed, f"a string of {tokens} tokens in a share of {cfg.share:g}")
        room = int(room - beside) // copies
        rounds, left = divmod(room, int(sizes.sum()))
        order = np.tile(np.arange(n), rounds)[draw.shuffle(n * rounds)]  # words are numbered in drawn order
        if cfg.ask == "gram":
            return order
        rest = draw.permutation(n)
        return np.concatenate([order, rest[: int(np.searchsorted(np.cumsum(sizes[rest]), left, side="right"))]])

    def _form(self, factors: Factors) -> StringFormat:
        return StringFormat(factors.formats.value, self.config.digits, self.config.word_pairs)


def _with_gram(order: np.ndarray, wanted: list[int], begin: int, draw: Draws) -> np.ndarray:
    """The string with a gram and its answer, `wanted`, from word `begin` on, and the gram nowhere else.

    Words stand as often as before. Raises EpisodeError when a gram is too short for so long a string.
    """
    words, gram = order.copy(), wanted[:-1]
    kept = dict(zip(range(begin, begin + len(wanted)), wanted, strict=True))
    for at, word in kept.items():
        if words[at] != word:
            free = np.flatnonzero(words == word)
            free = free[~np.isin(free, [i for i in kept if kept[i] == words[i]])]
            source = int(free[draw("source", word).integer(len(free))])
            words[source], words[at] = words[at], word
    for turn in range(REPAIRS):
        again = _occurrences(words, gram)
        again = again[again != begin] + len(gram) - 1
        if not len(again):
            return words
        partners = draw("repair", turn).integers(len(words), len(again))
        for last, partner in zip(again.tolist(), partners.tolist(), strict=True):
            if partner not in kept:  # `last` never is: a gram's words differ, so that grams do not overlap
                words[last], words[partner] = words[partner], words[last]
    raise EpisodeError("task.gram", len(gram), "a longer gram or a shorter string")


def _occurrences(words: np.ndarray, gram: list[int]) -> np.ndarray:
    """Where a gram begins."""
    found = np.flatnonzero(words[: len(words) - len(gram) + 1] == gram[0])
    for i in range(1, len(gram)):
        found = found[words[found + i] == gram[i]]
    return found
