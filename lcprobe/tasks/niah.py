"""Needles in a haystack: key-value pairs somewhere in a text, and questions about some of the keys.

Sources: Kamradt 2023 (LLMTest_NeedleInAHaystack); Hsieh et al. 2024, RULER, arXiv 2404.06654 (niah_single, _multikey,
_multivalue, _multiquery). Differs from RULER: exactly `length` tokens with BOS and answer, the target needle at an
exact depth, a different haystack window for every sample, keys and values that occur once, and controls.

    line       ... people of the falcon: 4071932; United States ...  falcon:            -> " 4071932"
    sentence   ... The secret value for falcon is 4071932. ...  The secret value for falcon is    -> " 4071932"

single: n_keys 1 (copying the only value scores 1: no key look-up is needed, but in a haystack of needles, where the
lines have keys and values too). multi-key: n_keys > 1. multi-value: n_values > 1, all values of the key in order.
multi-query: n_queries > 1, one after the other, or each directly after the context (separate). Every piece begins
with a space and ends with punctuation, so that pieces join at word boundaries in any tokenizer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from lcprobe.errors import require
from lcprobe.tasks.assembly import Task
from lcprobe.tasks.parts.distractor_lines import LineSample, line_bank
from lcprobe.tasks.parts.layout import (
    EMPTY,
    Context,
    Layout,
    Question,
    Sample,
    fill_with_lines,
    fill_with_text,
)
from lcprobe.tasks.parts.placement import Cut, Needle, make_needles
from lcprobe.tasks.text.formats import StringFormat
from lcprobe.tasks.text.haystack import Materials


class Template(NamedTuple):
    """Wording. `ask` precedes the value in the needle and, as the question, the answer.

    first, cue: with the question at the start, its wording there and what precedes the answer at the end.
    """

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
NIAH_WORDING = "".join("".join(t) for t in TEMPLATES.values()) + AND


@dataclass(frozen=True)
class NIAHConfig:
    """One needle task. Formats (haystack, key, value), length and depth are factors of the grid, not settings."""

    n_keys: int = 4
    """Keys in the context. With 1, printing the only value scores 1.0, but in a haystack of needles."""
    n_values: int = 1
    """Values (and needles) per key; the answer is all values of the target key, in order of appearance."""
    n_queries: int = 1
    """Different keys that are queried, one after the other."""
    separate: bool = False
    """Every question directly after the context, as if it were the only one: the answers to the others are not
    seen."""
    template: Literal["line", "sentence"] = "sentence"
    """Wording of needles and questions."""
    question: Literal["end", "start"] = "end"
    """Where the question is: after the haystack, or before it."""
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


class NIAH(Task[NIAHConfig]):
    """The generator. Needles of the target key come first, then those of the other keys."""

    Config = NIAHConfig
    name = "niah"

    def __init__(self, config: NIAHConfig, materials: Materials):
        super().__init__(config, materials)
        self.template = TEMPLATES[config.template]

    def string_format(self, kind: str, role: str) -> StringFormat:
        """See Task."""
        cfg = self.config
        tokens = cfg.key_tokens if role == "key" else cfg.value_tokens
        return StringFormat(kind, cfg.digits, cfg.word_pairs, None if kind == "uuids" else tokens)

    def references(self, answer: str) -> tuple[str, ...]:
        """See Task: the values, where there are several."""
        return tuple(answer.split(AND)) if self.config.n_values > 1 else (answer,)

    def layout(self, sample: Sample) -> Layout:
        """See Task."""
        cfg, formats = self.config, sample.factors.formats
        forms = self.string_format(formats.key, "key"), self.string_format(formats.value, "value")
        wording = self.template.ask, self.template.tail, NIAH_WORDING
        lines = line_bank(sample.tokenizer, *forms, *wording, *sample.names).sample(sample.draw)
        unique = sample.unique(NIAH_WORDING)
        # a permutation per format: another value format leaves the keys as they were. The last key is in no needle
        keys, values = lines.keys(cfg.n_keys + 1, unique), lines.values(cfg.n_keys * cfg.n_values, unique)
        asks = [self.template.ask.format(key=key) for key in keys[:-1] for _ in range(cfg.n_values)]
        needles = make_needles(sample.tokenizer, asks, values, self.template.tail)
        cuts = sample.cuts(needles, sample.depths(len(needles)), range(cfg.n_values))
        key = keys[-1] if sample.factors.control == "wrong_key" else keys[0]
        longest = self._longest(sample, lines, needles)
        opening, longest_opening = EMPTY, 0
        if cfg.question == "start":
            opening, other = (sample.tokenizer.piece(self.template.first.format(key=k)) for k in (key, keys[0]))
            longest_opening = len(other) + longest[0] - len(needles[0].ask)
        questions = self._questions([key, *keys[1:]], needles, longest)

        def fill(room: int) -> Context:
            return self._fill(sample, lines, questions, needles, cuts, room)

        return Layout(
            cuts=cuts,
            questions=questions,
            what=f"{len(cuts)} needles in `{cfg.template}` wording",
            opening=opening,
            longest_opening=longest_opening,
            separate=cfg.separate,
            fill=fill,
        )

    def _longest(self, sample: Sample, lines: LineSample, needles: list[Needle]) -> tuple[int, int]:
        """Tokens of the longest ask and of the longest answer among the keys of the context."""
        n, ask = self.config.n_values, max(len(needle.ask) for needle in needles)
        value = max(len(needle.value) for needle in needles)
        if sample.factors.formats.haystack == "needles":
            ask, value = lines.longest_of_all
        if n > 1:
            value = max(len(self._list(needles, range(i, i + n))) for i in range(0, len(needles), n))
        return ask, value

    def _fill(
        self,
        sample: Sample,
        lines: LineSample,
        questions: list[Question],
        needles: list[Needle],
        cuts: list[Cut],
        room: int,
    ) -> Context:
        """The haystack, and the questions with the answers that are left to choose from."""
        cfg, distractors, n_lines = self.config, [], 0
        if sample.factors.formats.haystack == "needles" and room:
            filled = lines.run(room)
            context = fill_with_lines(sample, cuts, room, filled)
            distractors, n_lines = list(filled.values), len(filled)
        else:
            context = fill_with_text(sample, cuts, room)
        order = [index for _, index in context.parts if index is not None]
        if cfg.n_values > 1:
            targets = [i for i in order if i < cfg.n_values] or range(cfg.n_values)
            questions = [self._about_list(questions[0], needles, targets)]
        answered: set[int] = set()
        completed: list[Question] = []
        for question in questions:
            index = question.evidence[0] if question.evidence else 0
            answered = {index} if cfg.separate else {*answered, index}
            if cfg.n_values == 1:
                others = [needles[i].value for i in order if i not in answered] + distractors
                n_choices = cfg.n_keys - len(answered) + 1 + n_lines
            else:  # a guess lists the values of one key: lines, with one value per key, are no choice
                groups = [[i for i in order if i // cfg.n_values == key] for key in range(1, cfg.n_keys)]
                others, n_choices = [self._list(needles, group) for group in groups if group], cfg.n_keys
            completed.append(question._replace(others=others, chance=1.0 / n_choices))
        return context._replace(questions=completed)

    def _questions(self, keys: list[str], needles: list[Needle], longest: tuple[int, int]) -> list[Question]:
        """Questions about the first keys. longest: tokens of the longest ask and of the longest answer."""
        cfg, template, tok = self.config, self.template, self.materials.tokenizer
        ask = tok.piece(template.cue if cfg.question == "start" else template.ask.format(key=keys[0]))
        tail, last = EMPTY if cfg.separate else tok.piece(template.tail), cfg.n_queries - 1
        questions = [
            Question(
                key=keys[i],
                text=needles[i].text,
                ask=needles[i].ask if i else ask,
                answer=needles[i].value,
                longest=longest[1],
                tail=tail if i < last else EMPTY,
                evidence=needles[i].evidence(i),
                longest_ask=longest[0] if cfg.question == "end" else 0,
            )
            for i in range(cfg.n_queries)
        ]
        return questions if cfg.n_values == 1 else [self._about_list(questions[0], needles, range(cfg.n_values))]

    def _about_list(self, question: Question, needles: list[Needle], targets: Sequence[int]) -> Question:
        """The question about all values of its key. targets: their needles in order of appearance."""
        return question._replace(
            text=AND.join(needles[i].text for i in targets),
            answer=self._list(needles, targets),
            evidence=needles[targets[0]].evidence(targets[0]),
        )

    def _list(self, needles: list[Needle], indices: Sequence[int]) -> np.ndarray:
        """Several values as one answer."""
        joint = self.materials.tokenizer.piece(AND.rstrip())
        return np.concatenate([p for i in indices for p in (joint, needles[i].value)][1:])
