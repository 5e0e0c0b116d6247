"""Copying: a string of words somewhere in the context, to be repeated in full, or the one word that follows an n-gram
of it.

Source: Jelassi et al. 2024, arXiv 2402.01032 (copying; n-gram look-up). Differs from it: text of any tokenizer, the
string inside a haystack at an exact depth, with a fixed number of words (`words`) or a share of the length (`share`).
RULER has no such task.

    all      ... States Words: owl fig jay fig owl jay. of the ... Again:               ->  " owl fig jay fig owl jay"
    gram     ... States Words: owl fig jay fig fig elk. of the ... Again: fig fig       ->  " elk"

all: nothing is looked up, the one string of the context is the answer (chance 1, as for a single needle); one wrong
word makes the answer wrong, so token accuracy tells how far a model gets.

gram: the string is a sequence of grams, no two alike, each with a word after it. Words that follow (jay, elk) are in
no gram, occur equally often and have equally many tokens, and any place is queried equally often: chance is 1 /
different ones. Were every word of the string a choice, those of the gram, and those at the front that no whole gram
precedes, would not be: a guess of the first word left would be right too often. Grams are made of as few words (owl,
fig) as give every place one of its own, so that the last word of a gram alone leaves a choice of its occurrences.
"""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np

from lcprobe.errors import EpisodeError, require
from lcprobe.seeds import LazyPermutation, Stream
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.names import NOTHING, RUNNING
from lcprobe.tasks.parts.layout import EMPTY, Layout, Question, Sample, TooShort
from lcprobe.tasks.parts.placement import FEWER, MAX_JOINTS, Needle, UniqueStrings, gather_units
from lcprobe.tasks.text.formats import StringFormat, candidates, token_count
from lcprobe.tasks.text.tokenizer import Tokenizer

OPEN, CLOSE, CUE = " Words:", ".", " Again:"
MAX_GRAM = 16
"""Words of a gram at most."""
SIZE_SAMPLES = 256
"""Strings of a format from which its usual token count is estimated."""


@dataclass(frozen=True)
class CopyingConfig:
    """The string and the question about it. The words' format, haystack, length and depth are factors of the grid."""

    ask: Literal["all", "gram"] = "all"
    """The whole string, or the word after a gram."""
    words: int = 16
    """Words that are or may be the answer: all of the string, or those that follow a gram."""
    share: float | None = None
    """Tokens of string and answer as a share of the length, so that the string grows with it; null: `words` of
    them."""
    vocabulary: int = 32
    """Different words of these at most; for gram each equally often, so that of more `words` only a multiple of this
    is taken, and as many again, at most, for the grams."""
    gram: int = 2
    """Words of a gram."""
    digits: int = 4
    """Digits of words that are numbers; hex has as many tokens."""
    word_pairs: bool = False
    """Words are adjective-noun pairs (34 thousand) instead of nouns (278, most of which occur in a long text)."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts that do not fit together."""
        require(f"{at}.words", self.words, self.words >= 2, ">= 2")
        require(f"{at}.vocabulary", self.vocabulary, self.vocabulary >= 2, ">= 2")
        require(f"{at}.gram", self.gram, 1 <= self.gram <= MAX_GRAM, f"1 .. {MAX_GRAM}")
        if self.ask == "gram" and self.share is None:
            allowed = f"at most {self.grams} with a gram of {self.gram} and a vocabulary of {self.vocabulary}: "
            allowed += "no two grams alike"
            require(f"{at}.words", self.words, self.words <= self.grams, allowed)
        require(f"{at}.share", self.share, self.share is None or 0 < self.share <= 1, "> 0 and <= 1, or null")
        require(f"{at}.digits", self.digits, 1 <= self.digits <= 15, "1 .. 15")

    @property
    def grams(self) -> int:
        """Different grams that there are."""
        return self.vocabulary**self.gram


class CopyTarget(NamedTuple):
    """string: ids of the words; ask: the gram in the question; text, answer: the answer; span: its first token in the
    string and its number of tokens; others: ids of the other candidates.
    """

    string: np.ndarray
    key: str
    ask: np.ndarray
    text: str
    answer: np.ndarray
    span: tuple[int, int]
    others: list[np.ndarray]


class Copying(Task[CopyingConfig]):
    """The generator. zero_distance: the string directly before the question. no_needle: haystack instead of the
    string.
    """

    Config = CopyingConfig
    name = "copying"
    axes = Axes(haystack=RUNNING, key=(NOTHING,), controls=("none", "zero_distance", "no_needle", "query_only"))

    @property
    def has_keys(self) -> bool:
        """Whether a gram is looked up."""
        return self.config.ask == "gram"

    def string_format(self, kind: str, role: str) -> StringFormat:
        """See Task."""
        return StringFormat(kind, self.config.digits, self.config.word_pairs)

    def layout(self, sample: Sample) -> Layout:
        """See Task. Raises EpisodeError for a length too long for a share of different grams, and formats without as
        many words.
        """
        tok = sample.tokenizer
        unique = sample.unique(OPEN + CLOSE + CUE)
        opening, close, cue = tok.piece(OPEN), tok.piece(CLOSE), tok.piece(CUE)
        target = self._whole(sample, unique) if self.config.ask == "all" else self._gram(sample, unique)
        first, size = target.span
        question = Question(
            key=target.key,
            text=target.text,
            ask=np.concatenate([cue, target.ask]),
            asked=len(cue),
            answer=target.answer,
            longest=len(target.answer),  # of the only candidate, or of words with equally many tokens
            evidence=(0, len(opening) + first, size),
            others=target.others,
            chance=1 / (len(target.others) + 1),
        )
        whole = np.concatenate([opening, target.string, close])
        every = max(16, len(target.string) // MAX_JOINTS)
        needle = Needle(whole, opening, target.string, target.text, tuple(range(len(opening), len(whole), every)))
        return Layout(
            cuts=sample.cuts([needle], [sample.factors.depth], [0]),
            questions=[question],
            what=f"a string of {len(target.string)} tokens and its question",
        )

    def _whole(self, sample: Sample, unique: UniqueStrings) -> CopyTarget:
        """A string of words in random order, each as often as any other or once less, and all of it as the answer."""
        cfg, tok, kind = self.config, sample.tokenizer, sample.factors.formats.value
        n = cfg.vocabulary if cfg.share is not None else min(cfg.vocabulary, cfg.words)
        form = self.string_format(kind, "value")
        words = unique.draw(form, n, sample.draw("value", kind), "formats.value", CLOSE)
        units, order = tok.pieces([" " + word for word in words]), sample.draw("order")
        if cfg.share is None:
            rounds = -(-cfg.words // n)
            numbers = np.tile(np.arange(n), rounds)[order.shuffle(n * rounds)]
            numbers = numbers[: cfg.words]  # words come in drawn order
        else:
            sizes = np.array([len(unit) for unit in units])
            room = self._room(sample, 2 * int(sizes.max())) // 2  # the string twice
            rounds, left = divmod(room, int(sizes.sum()))
            rest = order.permutation(n)
            rest = rest[: int(np.searchsorted(np.cumsum(sizes[rest]), left, side="right"))]
            numbers = np.concatenate([np.tile(np.arange(n), rounds)[order.shuffle(n * rounds)], rest])
        string = gather_units(units, numbers)
        text = " ".join(np.array(words, dtype=object)[numbers])
        return CopyTarget(string, CUE.strip(), EMPTY, text, string, (0, len(string)), [])

    def _gram(self, sample: Sample, unique: UniqueStrings) -> CopyTarget:
        """Places of a gram and the word after it, and one of them as the question. Words by number: those that follow
        first.
        """
        cfg, tok, draw = self.config, sample.tokenizer, sample.draw
        form = self.string_format(sample.factors.formats.value, "value")
        size = _usual_tokens(tok, form)
        n = cfg.vocabulary if cfg.share is not None else min(cfg.vocabulary, cfg.words)
        rounds, place = cfg.words // n, (cfg.gram + 1) * size
        if cfg.share is not None:
            rounds = (self._room(sample, (n + 1) * place) - place) // (n * place)  # the target place occurs twice
            if n * rounds > cfg.grams:
                most = int((cfg.grams + 1) * place / cfg.share)
                allowed = f"<= {most} tokens for a share of {cfg.share:g}, or a longer gram: "
                allowed += f"{cfg.vocabulary} words make {cfg.grams}"
                raise EpisodeError("length", sample.factors.length, allowed)
        n_places = n * rounds
        n_gram_words = next(few for few in range(2, n_places + 2) if few**cfg.gram >= n_places)
        source = candidates(form, draw("value", form.kind), tok)
        fits = (string for string in source if token_count(tok, string) == size and tok.keeps_apart(string, CLOSE))
        given = f"{n + n_gram_words} distinct {form} of {size} tokens"
        error = EpisodeError("formats.value", given, f"another format, fewer words or {FEWER}")
        words = unique.first(fits, n + n_gram_words, error)
        follow = np.tile(np.arange(n), rounds)[draw("order").shuffle(n_places)]
        codes = LazyPermutation(draw("grams"), n_gram_words**cfg.gram)(np.arange(n_places))
        grams = n + codes[:, None] // n_gram_words ** np.arange(cfg.gram) % n_gram_words
        target = draw("place").integer(n_places)
        units = tok.pieces([" " + word for word in words])
        return CopyTarget(
            string=gather_units(units, np.concatenate([grams, follow[:, None]], axis=1).ravel()),
            key=" ".join(words[i] for i in grams[target]),
            ask=gather_units(units, grams[target]),
            text=words[follow[target]],
            answer=units[follow[target]],
            span=((target + 1) * place - size, size),
            others=[units[i] for i in range(n) if i != follow[target]],
        )

    def _room(self, sample: Sample, least: int) -> int:
        """Tokens of the string and of what the question repeats of it. Raises TooShort where their share of the
        length is less.
        """
        share, piece, length = self.config.share or 1.0, sample.tokenizer.piece, sample.factors.length
        frame = sample.frame
        wording = 1 + sum(len(piece(p)) for p in (OPEN, CLOSE, CUE))  # and BOS
        wording += len(frame.before) + len(frame.between)
        room = min(share * length + 1e-6, length - wording)
        if room < least:
            needed = max(int(np.ceil(least / share - 1e-6)), least + wording)
            raise TooShort(length, needed, f"a string of {least} tokens in a share of {share:g}")
        return int(room)


@lru_cache(maxsize=64)
def _usual_tokens(tokenizer: Tokenizer, form: StringFormat) -> int:
    """The token count that most strings of a format have; of two the less."""
    some = islice(candidates(form, Stream("usual", form.kind), tokenizer), SIZE_SAMPLES)
    counts = Counter(token_count(tokenizer, string) for string in some)
    return max(counts, key=lambda n: (counts[n], -n))
