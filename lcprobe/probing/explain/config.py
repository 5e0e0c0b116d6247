"""The settings of `lcprobe explain`. Imports no torch."""

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from lcprobe.errors import require, require_names
from lcprobe.probing.explain.protocol import Protocol

Scorer = Literal["ours", "prefix", "substring", "exact", "first_line", "first_word"]
CAUSE_NAMES = (
    "protocol", "scorer", "budget", "length", "tokenizer", "bos", "template", "wrapper", "cut", "space", "needles",
    "samples", "aggregation",
)  # fmt: skip


@dataclass(frozen=True)
class ExplainConfig:
    """Somebody's number, and what is known of how it was measured."""

    task: Any
    """What it is a number for: a preset such as ruler/niah_single_1, a task, a mapping with `type`, or a name of the
    run's probe.tasks."""
    length: int | list[int]
    """Tokens, as they say. Several lengths with one number each tell causes apart that one number does not."""
    theirs: float | list[float]
    """Their number, 0 .. 1; one for each length."""
    n: int | None = None
    """Samples that it is a mean of; null: not known, taken to be as many as ours."""
    answers: int = 1
    """Answers of one sample that it is a mean of, such as 4 of RULER's niah_multivalue: only to check that the number
    can be one of n samples."""
    haystack: str | None = None
    """Haystack; null: that of the preset, else corpus."""
    key: str | None = None
    """Format of keys; null: that of the preset, else words."""
    value: str | None = None
    """Format of values; null: that of the preset, else numbers."""
    scorer: Scorer | None = None
    """Their rule, where it is known (null: not known, and so for the settings below): ours, the continuation begins
    with the answer's tokens | prefix, with its text | substring, the answer is anywhere | exact, nothing else |
    first_line, anywhere in the first line | first_word."""
    budget: int | None = None
    """Tokens that they generate."""
    room: Literal["answer", "budget", "none"] | None = None
    """What their length includes behind the prompt: room for the answer, the whole budget, or nothing."""
    counted: str | None = None
    """What their length counts: a tokenizer as in data.tokenizer, words, or characters/4; empty: the model's own
    tokens."""
    bos: int | None = None
    """Begin tokens before their prompts."""
    template: str | None = None
    """Their chat template: none | chat, the model's own | instruction | rwkv | chatml | llama2 | alpaca | roles, or
    one of these with + where the words before the answer are in the user's turn."""
    wrapper: str | None = None
    """Their instruction around the text: none | ruler | instruction | question."""
    samples: str | None = None
    """Their samples: ours, which are drawn anew for every model and length alike, lm-eval, or a file of prompts (JSON
    lines of RULER)."""
    combine: Literal["mean", "all", "any"] | None = None
    """How they score several answers of a sample."""
    cut: Literal["none", "budget", "3/4", "1/2"] | None = None
    """What of a prompt their model reads: all of it (none), or its end, as long as the length without the budget
    (what lm-eval leaves of a prompt where the length is the model's), or that share of it."""
    tail: Literal["none", "space"] | None = None
    """What follows their prompts: nothing, or a space."""
    keys: int | None = None
    """Keys in their contexts, of niah: RULER's niah_single tasks have 1, our presets of them 2."""
    tokenizers: list[str] = field(default_factory=list)
    """Further tokenizers by which the length may have been counted."""
    prompts: list[str] = field(default_factory=list)
    """Files of prompts that they may have used (JSON lines of RULER: input, outputs)."""
    outputs: str | None = None
    """A file of their prompts and continuations (JSON lines: prompt, continuation, answers), which is looked at
    directly."""
    causes: list[str] = field(default_factory=lambda: list(CAUSE_NAMES))
    """What is tried."""
    our_n: int = 250
    """Samples of ours."""
    alpha: float = 0.01
    """Level of the tests of our number, and of every changed one, against theirs."""
    out: str | None = None
    """A file for everything that was measured, as JSON; null: none."""

    def check(self, at: str) -> None:
        """Raises ConfigError for counts out of range, and lengths and numbers that are not as many."""
        require("length", self.length, all(x >= 1 for x in self.lengths) and self.lengths != [], "tokens, >= 1")
        require("theirs", self.theirs, all(0 <= x <= 1 for x in self.numbers), "0 .. 1, such as 0.62 for 62 %")
        many = f"{len(self.lengths)}, one for each length"
        require("theirs", self.theirs, len(self.lengths) == len(self.numbers), many)
        alone = self.outputs is None or len(self.lengths) == 1
        require("outputs", self.outputs, alone, "one length and number, whose prompts and continuations they are")
        for name in ("n", "budget", "keys"):
            value = getattr(self, name)
            require(name, value, value is None or value >= 1, ">= 1")
        require("answers", self.answers, self.answers >= 1, ">= 1")
        require("bos", self.bos, self.bos is None or 0 <= self.bos <= 2, "0, 1 or 2")
        require("our_n", self.our_n, 20 <= self.our_n <= 100_000, "20 .. 100000")
        require("alpha", self.alpha, 0 < self.alpha <= 0.2, "above 0, at most 0.2")
        require_names("causes", self.causes, CAUSE_NAMES)

    @property
    def lengths(self) -> list[int]:
        """The lengths."""
        return self.length if isinstance(self.length, list) else [self.length]

    @property
    def numbers(self) -> list[float]:
        """Their numbers, one for each length."""
        return self.theirs if isinstance(self.theirs, list) else [self.theirs]

    @property
    def described(self) -> dict[str, Any]:
        """What they say about their protocol, by its fields."""
        names = {f.name for f in fields(Protocol)} & {f.name for f in fields(self)}
        return {name: getattr(self, name) for name in sorted(names) if getattr(self, name) is not None}
