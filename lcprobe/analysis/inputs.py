"""Inputs of the analysis besides the records: facts about the runs, the tasks and the study, as plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from lcprobe.training_data import TrainingData

Value = str | int | float | bool | None
"""A value of a table row."""
NotCausal = Literal["", "method", "positions", "factor"]


class BiasRow(TypedDict):
    """Bias that one attention head adds to scores at one distance."""

    layer: int
    head: int
    encoding: str
    distance: int
    bias: float


@dataclass(frozen=True)
class RunFacts:
    """One trained (or published) model."""

    name: str
    """Unique within the study; the `model` column of the records."""
    group: str
    """Runs that differ only in their seed share a group; equal to name where there is one seed."""
    layout: str
    seed: int
    context_length: int
    """Training length in tokens: the report's 1x."""
    params: int
    embedding_params: int
    tokens: int
    """Training tokens."""
    lr: float | None
    seconds: float | None
    """Training time."""
    data_digest: str
    """Rolling digest of every training batch; equal for all runs of a matched study."""
    skipped_steps: int
    checkpoint: str
    """Digest of the weights."""
    tuned: str
    """How the learning rate was chosen: `swept` (best of a sweep, not at its edge), `swept, at the edge of the grid`,
    `not swept`, `published`. Anything but `swept` is flagged."""
    metrics: Sequence[dict[str, float]] = field(default_factory=list)
    """Rows of metrics.csv: tokens, train/loss, train/text_loss, train/answer_loss, train/lr, train/grad_norm,
    train/tokens_per_second, and probe rows (probe/<task>@<length>); absent values are absent keys."""
    biases: Sequence[BiasRow] = field(default_factory=list)
    """Biases by layer, head and distance, where attention adds a number to scores that depends on distance alone."""
    extension: str = "none"
    """Label of the method that changes the trained model at evaluation; none: as trained."""
    tokenizer: str = ""
    """Digest of its tokenizer and BOS, 16 hexadecimal digits, as in the records; empty: unknown, assumed the same."""
    own_context_length: int = 0
    """Training length in its own tokens, where `context_length` counts tokens of another tokenizer; 0: its own."""
    base: str = ""
    """Name of the same model as trained; empty: its own name."""
    not_causal: NotCausal = ""
    """Why a token's output depends on the length of the whole sequence: the extension `method`, the `positions`
    (drawn for that length) or a `factor` that follows it; empty: it does not."""
    architecture: str = ""
    """Models that differ in their training length and seed alone share it; empty: the group."""
    training_data: TrainingData | None = None
    """What the run was asked and could see in training; None: not recorded."""
    length_schedule: str = ""
    """Context lengths over the budget, such as `64 until 0.5, then 128`; empty: one length."""
    started_from: str = ""
    """Run or folder whose weights training started from; empty: random weights. `tokens` count from there."""
    tokens_before: int = 0
    """Training tokens of what it started from, that run's own start included; 0: none, or not recorded."""
    trained_extension: str = ""
    """Method that extends the positional encodings, with its factor, where the model was trained with one:
    `yarn(factor=4.0)`; empty: none. It is part of the model as trained."""
    template: str = "none"
    """Prompt template around its prompts, by name: `chat` is its own."""
    batch_tokens: int = 0
    """Training tokens per optimiser step; 0: unknown."""
    published: str = ""
    """Abbreviation of a checkpoint in arXiv 2407.08112 (Mamba2, M2A, TPP, RG, ...), whose numbers stand beside ours;
    empty: not in it."""
    flops: float = 0.0
    """Training FLOPs, forward and backward, at the training length; 0: unknown."""


@dataclass(frozen=True)
class TaskFacts:
    """One task of the grid."""

    name: str
    description: str
    """Its settings in words."""
    chance: float | None
    """Expected score of choosing one of the values without using the key; None where it varies."""
    has_keys: bool
    """Whether its questions name a key, which has to be looked up wherever its value has rivals (chance below 1)."""
    example: str
    """A rendered prompt with its answer."""
    code: str = ""
    """Digest of the code that makes its episodes, as in the records; empty: not recorded."""
    controls: Sequence[str] = ()
    """Controls that the task has; empty: unknown, those that were planned."""


@dataclass(frozen=True)
class StudyFacts:
    """Everything about a study that the report prints."""

    name: str
    runs: Sequence[RunFacts]
    tasks: Sequence[TaskFacts]
    matching: Sequence[dict[str, Value]]
    """Rows of the matching table, ready to print: column -> value."""
    mismatch: float
    """Largest relative difference between two models in what is matched."""
    sweep: Sequence[dict[str, Value]]
    """Rows of a learning-rate sweep (group, lr, score, worst_seed, best, at_edge), empty without one."""
    versions: dict[str, str]
    """Packages, Python, machine, code digest, suite version."""
    config_yaml: str
    """The resolved configuration."""
    expected_cells: Sequence[Mapping[str, Any]]
    """The planned grid: rows of task, haystack, key_format, value_format, control, length, depth, and n samples per
    model; a mean is taken only over slices that are complete."""
    equal_length: Literal["tokens", "text"] = "tokens"
    """What models of several tokenizers have in common at one length: tokens, each its own, or the text."""
    notes: Sequence[str] = field(default_factory=list)
    """Cells that could not be built, and why; printed unchanged."""
    unread: Sequence[str] = field(default_factory=list)
    """Models whose positions end before some lengths: what is left out; each is a warning of the report."""
    held_equal: str = "tokens"
    """What runs of one architecture were to have in common at all training lengths: tokens, steps or flops; empty
    where the runs come from studies that differ in it."""
    batch_in: str = "tokens"
    """What a step was to have in common at all training lengths: tokens or rows; empty as above."""
    question: str = ""
    """What this report asks, in words, where the study has others: it stands below the title."""
    matched: str = "parameters"
    """What models were matched in: parameters, FLOPs per token or bytes of state; parameters where studies differ."""
    amounts: Sequence[float] = field(default_factory=list)
    """How much of it each run has, in their order; empty: their parameters."""
