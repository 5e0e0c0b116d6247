"""Copying: a string of words somewhere in the context, to be said again in full, or the one word that follows an n-gram of it.

Source: Jelassi et al. 2024, arXiv 2402.01032 (copying; n-gram look-up). Differs from it: text of any tokenizer, the string inside
a haystack at an exact depth, as long as asked for (`words`) or a share of the length (`share`). RULER has no such task.

    all      ... States Words: owl fig jay fig owl jay. of the ... Again:               ->  " owl fig jay fig owl jay"
    gram     ... States Words: owl fig jay fig fig elk. of the ... Again: fig fig       ->  " elk"

all: nothing is looked up, the one string of the context is the answer (chance 1, as for a single needle); a miss anywhere is a
miss, so token accuracy says how far a model gets.

gram: the string is a row of grams, no two alike, each with a word after it. Words that follow (jay, elk) are in no gram, stand
equally often and have equally many tokens, and any place is asked for equally often: chance is 1 / different ones. Were every
word of the string a choice, those of the gram, and those at the front that no whole gram stands before, would not be: who takes
the first word left in place of looking it up would be right too often. Grams are made of as few words (owl, fig) as give every
place one of its own, so that the last word of a gram alone leaves a choice of its occurrences.
"""

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np

from lcprobe.errors import EpisodeError, require
from lcprobe.seeds import Draws, LazyPermutation, Stream
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
from lcprobe.tasks.names import NOTHING, RUNNING
from lcprobe.tasks.parts.placement import FEWER, Cut, Needle, UniqueStrings, in_text, joined
from lcprobe.tasks.text.formats import StringFormat, candidates, check_format, token_count
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import Tokenizer

OPEN, CLOSE, CUE = " Words:", ".", " Again:"
LONGEST = 16
"""Words of a gram at most."""
CONSIDERED = 256
"""Strings of a format by which its usual token count is told."""


@dataclass(frozen=True)
class CopyingConfig:
    """The string and what is asked of it. The words' format, haystack, length and depth are factors of the grid."""

    ask: Literal["all", "gram"] = "all"
    """The whole string, or the word after a gram."""
    words: int = 16
    """Words that are asked for or may be: all of the string, or those that follow a gram."""
    share: float | None = None
    """Tokens of string and answer as a share of the length, so that the string grows with it; null: `words` of them."""
    vocabulary: int = 32
    """Different words of these at most; for gram each equally often, so that of more `words` only a multiple of this is taken,
    and as many again, at most, for the grams."""
    gram: int = 2
    """Words of a gram."""
    digits: int = 4
    """Digits of words that are numbers; hex has as many tokens."""
    word_pairs: bool = False
    """Words are adjective-noun pairs (34 thousand) instead of nouns (278, of which a long text may hold most)."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts that do not fit together."""
        require(f"{at}.words", self.words, self.words >= 2, ">= 2")
        require(f"{at}.vocabulary", self.vocabulary, self.vocabulary >= 2, ">= 2")
        require(f"{at}.gram", self.gram, 1 <= self.gram <= LONGEST, f"1 .. {LONGEST}")
        if self.ask == "gram" and self.share is None:
            says = f"at most {self.grams} with a gram of {self.gram} and a vocabulary of {self.vocabulary}: no two grams alike"
            require(f"{at}.words", self.words, self.words <= self.grams, says)
        require(f"{at}.share", self.share, self.share is None or 0 < self.share <= 1, "more than 0 .. 1, or null")
        require(f"{at}.digits", self.digits, 1 <= self.digits <= 15, "1 .. 15")

    @property
    def grams(self) -> int:
        """Different grams that there are."""
        return self.vocabulary**self.gram


class Target(NamedTuple):
    """string: ids of the words; ask: what of them the question says; text, answer: the answer; at: its first token in the string
    and how many it has; others: ids of what else it may be."""

    string: np.ndarray
    key: str
    ask: np.ndarray
    text: str
    answer: np.ndarray
    at: tuple[int, int]
    others: list[np.ndarray]


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

        Raises EpisodeError for a length that is too short (naming the least), or too long for a share of different grams, and for
        formats without as many words.
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
        unused = UniqueStrings(tok, stream, offset, factors.length, OPEN + CLOSE + CUE)
        before, opening, close, cue = [bos_piece(tok)], tok.piece(OPEN), tok.piece(CLOSE), tok.piece(CUE)
        asked = (self._whole if cfg.ask == "all" else self._gram)(factors, unused, draw)
        first, size = asked.at
        question = Question(
            key=asked.key,
            text=asked.text,
            ask=np.concatenate([cue, asked.ask]),
            answer=asked.answer,
            tail=EMPTY,
            evidence=(0, len(opening) + first, size),
            others=asked.others,
            chance=1 / (len(asked.others) + 1),
        )
        string = asked.string
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

    def _whole(self, factors: Factors, unused: UniqueStrings, draw: Draws) -> Target:
        """A string of words in random order, each as often as any other or once less, and all of it as the answer."""
        cfg, tok = self.config, self.materials.tokenizer
        n = cfg.vocabulary if cfg.share is not None else min(cfg.vocabulary, cfg.words)
        words = unused.draw(self._form(factors), n, draw("value", factors.formats.value), "formats.value", CLOSE)
        units, order = tok.pieces([" " + word for word in words]), draw("order")
        if cfg.share is None:
            rounds = -(-cfg.words // n)
            numbers = np.tile(np.arange(n), rounds)[order.shuffle(n * rounds)][
                : cfg.words
            ]  # words come in drawn order
        else:
            sizes = np.array([len(unit) for unit in units])
            room = self._room(factors, 2 * int(sizes.max())) // 2  # the string twice
            rounds, left = divmod(room, int(sizes.sum()))
            rest = order.permutation(n)
            rest = rest[: int(np.searchsorted(np.cumsum(sizes[rest]), left, side="right"))]
            numbers = np.concatenate([np.tile(np.arange(n), rounds)[order.shuffle(n * rounds)], rest])
        string = joined(units, numbers)
        text = " ".join(np.array(words, dtype=object)[numbers])
        return Target(string, CUE.strip(), EMPTY, text, string, (0, len(string)), [])

    def _gram(self, factors: Factors, unused: UniqueStrings, draw: Draws) -> Target:
        """Places of a gram and the word after it, and one of them as the question. Words by number: those that follow first."""
        cfg, tok, form = self.config, self.materials.tokenizer, self._form(factors)
        size = _usual_tokens(tok, form)
        n = cfg.vocabulary if cfg.share is not None else min(cfg.vocabulary, cfg.words)
        rounds, place = cfg.words // n, (cfg.gram + 1) * size
        if cfg.share is not None:
            rounds = (self._room(factors, (n + 1) * place) - place) // (n * place)  # the asked place stands twice
            if n * rounds > cfg.grams:
                most = int((cfg.grams + 1) * place / cfg.share)
                says = f"<= {most} tokens for a share of {cfg.share:g}, or a longer gram: {cfg.vocabulary} words make {cfg.grams}"
                raise EpisodeError("length", factors.length, says)
        n_places = n * rounds
        few = next(few for few in range(2, n_places + 2) if few**cfg.gram >= n_places)
        source = candidates(form, draw("value", form.kind), tok)
        fits = (string for string in source if token_count(tok, string) == size and tok.keeps_apart(string, CLOSE))
        given = f"{n + few} distinct {form} of {size} tokens"
        words = unused.first(
            fits, n + few, EpisodeError("formats.value", given, f"another format, fewer words or {FEWER}")
        )
        follow = np.tile(np.arange(n), rounds)[draw("order").shuffle(n_places)]
        codes = LazyPermutation(draw("grams"), few**cfg.gram)(np.arange(n_places))
        grams = n + codes[:, None] // few ** np.arange(cfg.gram) % few
        asked = draw("place").integer(n_places)
        units = tok.pieces([" " + word for word in words])
        return Target(
            string=joined(units, np.concatenate([grams, follow[:, None]], axis=1).ravel()),
            key=" ".join(words[i] for i in grams[asked]),
            ask=joined(units, grams[asked]),
            text=words[follow[asked]],
            answer=units[follow[asked]],
            at=((asked + 1) * place - size, size),
            others=[units[i] for i in range(n) if i != follow[asked]],
        )

    def _room(self, factors: Factors, least: int) -> int:
        """Tokens of the string and what of it stands in the question. Raises TooShort where their share of the length is less."""
        share, piece = self.config.share or 1.0, self.materials.tokenizer.piece
        wording = 1 + sum(len(piece(p)) for p in (OPEN, CLOSE, CUE))  # and BOS
        room = min(share * factors.length + 1e-6, factors.length - wording)
        if room < least:
            needed = max(int(np.ceil(least / share - 1e-6)), least + wording)
            raise TooShort(factors.length, needed, f"a string of {least} tokens in a share of {share:g}")
        return int(room)

    def _form(self, factors: Factors) -> StringFormat:
        return StringFormat(factors.formats.value, self.config.digits, self.config.word_pairs)


@lru_cache(maxsize=64)
def _usual_tokens(tokenizer: Tokenizer, form: StringFormat) -> int:
    """The token count that most strings of a format have; of two the less."""
    some = islice(candidates(form, Stream("usual", form.kind), tokenizer), CONSIDERED)
    counts = Counter(token_count(tokenizer, string) for string in some)
    return max(counts, key=lambda n: (counts[n], -n))
