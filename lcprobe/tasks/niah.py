"""Needles in a haystack: keys with values somewhere in a text, and questions for some of the keys.

Sources: Kamradt 2023 (LLMTest_NeedleInAHaystack); Hsieh et al. 2024, RULER, arXiv 2404.06654 (niah_single, _multikey,
_multivalue, _multiquery). Differs from RULER: exactly `length` tokens with BOS and answer, the asked needle at an exact
depth, a haystack window of its own for every sample, keys and values that occur once, and controls.

    line       ... people of the falcon: 4071932; United States ...  falcon:            -> " 4071932"
    sentence   ... The secret value for falcon is 4071932. ...  The secret value for falcon is    -> " 4071932"

single: n_keys 1 (copying the only value scores 1: no key look-up is needed). multi-key: n_keys > 1. multi-value: n_values
> 1, all values of the key in order. multi-query: n_queries > 1, asked one after the other, or each from the context on
(separate). Every piece begins with a space and ends with punctuation, so that pieces join at word boundaries in any tokenizer.
"""

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

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
from lcprobe.tasks.parts.distractor_lines import LineBank
from lcprobe.tasks.parts.placement import Cut, Needle, UniqueStrings, in_lines, in_text, make_needles
from lcprobe.tasks.text.formats import StringFormat, check_format
from lcprobe.tasks.text.haystack import Materials


class Template(NamedTuple):
    """Wording. `ask` stands before a value in the needle and again, as the question, before the answer."""

    ask: str
    tail: str
    first: str
    cue: str


TEMPLATES = {
    "line": Template(" {key}:", ";", " find {key};", " found:"),
    "sentence": Template(
        " The secret value for {key} is", ".", " Remember the value for {key}.", " That secret value is"
    ),
}
AND = " and "
"""Between several values; a word, since a tokenizer may merge a comma with the letter before it."""
WORDING = "".join("".join(t) for t in TEMPLATES.values()) + AND


@dataclass(frozen=True)
class NIAHConfig:
    """One needle task. Formats (haystack, key, value), length and depth are factors of the grid, not settings."""

    n_keys: int = 4
    """Keys in the context. With 1, printing the only value scores 1.0."""
    n_values: int = 1
    """Values (and needles) a key; all of the asked key's are asked for, in order of appearance."""
    n_queries: int = 1
    """Different keys asked for, one after the other."""
    separate: bool = False
    """Every question directly after the context, as if it were the only one: the answers to the others are not seen."""
    template: Literal["line", "sentence"] = "sentence"
    """Wording of needles and questions."""
    question: Literal["end", "start"] = "end"
    """Where the key is asked for: after the haystack, or before it."""
    digits: int = 7
    """Digits of keys and values that are numbers; hex has as many tokens."""
    word_pairs: bool = False
    """Words are adjective-noun pairs (34 thousand) instead of nouns (278)."""
    key_tokens: int | None = None
    """Keys have exactly this many tokens (not uuids)."""
    value_tokens: int | None = None
    """Values have exactly this many tokens (not uuids)."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts that do not fit together."""
        for name in ("n_keys", "n_values", "n_queries"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) >= 1, ">= 1")
        for name in ("key_tokens", "value_tokens"):
            value = getattr(self, name)
            require(f"{at}.{name}", value, value is None or value >= 1, ">= 1 or null")
        require(f"{at}.digits", self.digits, 1 <= self.digits <= 15, "1 .. 15")
        require(f"{at}.n_queries", self.n_queries, self.n_queries <= self.n_keys, f"<= n_keys ({self.n_keys})")
        simple = self.n_queries == 1 or (self.question == "end" and self.n_values == 1)
        require(f"{at}.n_queries", self.n_queries, simple, "1 with question: start or n_values > 1")


class NIAH:
    """The generator: `episode(factors)` is a pure function of the config, the materials and the factors."""

    Config = NIAHConfig
    axes = Axes()

    def __init__(self, config: NIAHConfig, materials: Materials):
        self.config, self.materials, self.template = config, materials, TEMPLATES[config.template]
        self._banks: dict[tuple[str, str, str], LineBank] = {}

    @property
    def needs_lookup(self) -> bool:
        """Whether copying the only value does not score 1."""
        return self.config.n_keys > 1

    def episode(self, factors: Factors) -> Episode:
        """One episode of exactly `factors.length` tokens (query_only: as long as its question and answer).

        Raises ConfigError for factors outside `axes`, EpisodeError for a length that is too short (naming the least), or
        formats that the tokenizer cannot join exactly. Nothing is ever cut to make it fit.
        """
        self.axes.check(factors)
        return certify(lambda attempt: self._build(factors, attempt), factors, self.materials.tokenizer)

    def shortest(self, factors: Factors) -> int:
        """The least length at which this sample exists. Raises EpisodeError for impossible formats."""
        self.axes.check(factors)
        formats = factors.formats
        for role, kind in (("key", formats.key), ("value", formats.value)):
            check_format(f"formats.{role}", self._form(kind, role), self.materials.tokenizer)
        return least_length(lambda: self._build(replace(factors, length=1), 0))

    def _build(self, factors: Factors, attempt: int) -> Built:
        """The episode and where its pieces join."""
        cfg, tok, control = self.config, self.materials.tokenizer, factors.control
        draw = Draws("niah", SUITE, factors.split, factors.index)
        as_lines = factors.formats.haystack == "needles"
        stream = self.materials.stream("words" if as_lines else factors.formats.haystack)
        offset = (draw("haystack").integer(len(stream)) + 101 * attempt) % len(stream)
        hand = self._bank(factors).sample(draw)
        unused = UniqueStrings(tok, stream, offset, factors.length, WORDING)
        # an order for each format: another value format leaves the keys as they were. The last key is in no needle
        keys, values = hand.keys(cfg.n_keys + 1, unused), hand.values(cfg.n_keys * cfg.n_values, unused)
        asks = [self.template.ask.format(key=key) for key in keys[:-1] for _ in range(cfg.n_values)]
        needles = make_needles(tok, asks, values, self.template.tail)  # those of the asked key first
        depths = [factors.depth, *draw("depth").uniform(len(needles))[1:].tolist()]
        order = _order(depths, cfg.n_values, control)
        opening, questions = self._questions(keys, needles, order, control)

        before = [bos_piece(tok), opening]
        fixed = fixed_tokens(before, [needles[i].whole for i in order], questions, cfg.separate)
        room = 0 if control == "query_only" else factors.length - fixed
        if room < 0:
            raise TooShort(factors.length, fixed, f"{len(order)} needles in `{cfg.template}` wording")
        last = cfg.n_values if control == "zero_distance" else 0
        cuts = [Cut(i, 2.0 + i if i < last else depths[i], needles[i]) for i in order]  # past 1: after all the others
        start, values_near, n_lines = stream.window(offset, room) if room else offset, [], 0
        if as_lines and room:
            lines = hand.run(room)
            left = room - len(lines.ids)
            start = stream.window(offset, left) if left else offset
            context = in_lines(lines, np.arange(len(lines)), stream.take(start, left), cuts, 0)
            values_near, n_lines = list(lines.values), len(lines)
        else:
            context = in_text(stream, start, room, cuts)
        order = [index for _, index in context if index is not None]
        _, questions = self._questions(keys, needles, order, control)  # several values: asked in order of appearance
        asked: set[int] = set()
        for number, q in enumerate(questions):
            index, others = q.evidence[0] if q.evidence else 0, []
            asked = {index} if cfg.separate else {*asked, index}
            if cfg.n_values == 1:
                others, left = (
                    [needles[i].value for i in order if i not in asked] + values_near,
                    cfg.n_keys - len(asked) + 1 + n_lines,
                )
            else:  # a guess lists the values of one key: lines, with one value a key, are no choice
                groups = [[i for i in order if i // cfg.n_values == key] for key in range(1, cfg.n_keys)]
                others, left = [self._list(needles, group) for group in groups if group], cfg.n_keys
            questions[number] = q._replace(others=others, chance=1.0 / left)
        inner = {i: needles[i].joints for i in order}
        return assemble(
            before, context, questions, Haystack(start, room, room / len(stream)), inner, separate=cfg.separate
        )

    def _form(self, kind: str, role: str) -> StringFormat:
        cfg = self.config
        tokens = cfg.key_tokens if role == "key" else cfg.value_tokens
        return StringFormat(kind, cfg.digits, cfg.word_pairs, None if kind == "uuids" else tokens)

    def _questions(
        self, keys: list[str], needles: list[Needle], order: list[int], control: str
    ) -> tuple[np.ndarray, list[Question]]:
        """What stands before the haystack, and the questions after it, the last without its tail; others are filled in later."""
        cfg, t, tok = self.config, self.template, self.materials.tokenizer
        key = keys[-1] if control == "wrong_key" else keys[0]
        opening, ask = EMPTY, tok.piece(t.ask.format(key=key))
        if cfg.question == "start":
            opening, ask = tok.piece(t.first.format(key=key)), tok.piece(t.cue)
        if cfg.n_values > 1:
            asked = [i for i in order if i < cfg.n_values] or list(range(cfg.n_values))
            text = AND.join(needles[i].text for i in asked)
            return opening, [_question(key, text, asked[0], needles, ask, self._list(needles, asked), EMPTY)]
        tail, last = EMPTY if cfg.separate else tok.piece(t.tail), cfg.n_queries - 1
        questions = [_question(key, needles[0].text, 0, needles, ask, needles[0].value, tail if last else EMPTY)]
        for i in range(1, cfg.n_queries):
            n = needles[i]
            questions.append(_question(keys[i], n.text, i, needles, n.ask, n.value, EMPTY if i == last else tail))
        return opening, questions

    def _list(self, needles: list[Needle], indices: list[int]) -> np.ndarray:
        """Several values as one answer."""
        joint = self.materials.tokenizer.piece(AND.rstrip())
        return np.concatenate([p for i in indices for p in (joint, needles[i].value)][1:])

    def _bank(self, factors: Factors) -> LineBank:
        formats = factors.formats
        name = (formats.key, formats.value, factors.split)
        if name not in self._banks:
            forms = self._form(formats.key, "key"), self._form(formats.value, "value")
            wording = self.template.ask, self.template.tail, WORDING
            self._banks[name] = LineBank(self.materials.tokenizer, *forms, *wording, "niah", SUITE, factors.split)
        return self._banks[name]


def _question(
    key: str, text: str, index: int, needles: list[Needle], ask: np.ndarray, answer: np.ndarray, tail: np.ndarray
) -> Question:
    needle = needles[index]
    return Question(key, text, ask, answer, tail, (index, len(needle.ask), len(needle.value)), (), 1.0)


def _order(depths: list[float], n_asked: int, control: str) -> list[int]:
    """Needles of the context in order of depth; the asked key's are the first `n_asked`."""
    indices = range(len(depths))
    if control == "query_only":
        return []
    if control == "no_needle":
        return sorted(indices[n_asked:], key=lambda i: depths[i])
    if control == "zero_distance":
        return sorted(indices[n_asked:], key=lambda i: depths[i]) + list(indices[:n_asked])
    return sorted(indices, key=lambda i: depths[i])
