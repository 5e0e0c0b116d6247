"""What the analysis is given beside the records: facts about the runs, as plain values."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class RunFacts:
    """One trained (or published) model."""

    name: str
    """Unique within the study; the `model` column of the records."""
    group: str
    """Runs that differ only in their seed share this; equals name where there is one seed."""
    layout: str
    seed: int
    context_length: int
    """Training length in tokens: the report's 1x."""
    params: int
    embedding_params: int
    tokens: int
    """Trained on."""
    lr: float | None
    seconds: float | None
    """Of training."""
    data_digest: str
    """Rolling digest of every training batch; equal for all runs of a matched study."""
    skipped_steps: int
    checkpoint: str
    tuned: str
    """How the learning rate was chosen: `swept` (best of a sweep, not at its edge), `swept, at the edge of the grid`,
    `not swept`, `published`. Anything but `swept` is flagged."""
    metrics: list[dict[str, float]] = field(default_factory=list)
    """Rows of metrics.csv: tokens, train/loss, train/text_loss, train/answer_loss, train/lr, train/grad_norm,
    train/tokens_per_second, and probe rows (probe/<task>@<length>); absent values are absent keys."""
    biases: list[dict[str, Any]] = field(default_factory=list)
    """Rows of layer, head, encoding, distance, bias, where attention adds a number to scores by distance alone."""
    extension: str = "none"
    """Label of the method that changed it without training; none: as trained."""
    base: str = ""
    """Name of the same model as trained; empty: its own."""
    not_causal: str = ""
    """What makes a token's output depend on the declared length of the whole sequence: method | factor; empty: nothing."""


@dataclass(frozen=True)
class TaskFacts:
    """A task of the grid: its name, settings in words, the score of choosing a value without looking at the key (None where
    it varies), whether any key look-up is needed, and a rendered example."""

    name: str
    description: str
    chance: float | None
    needs_lookup: bool
    example: str


@dataclass(frozen=True)
class StudyFacts:
    """Everything about a study that the report prints."""

    name: str
    runs: list[RunFacts]
    tasks: list[TaskFacts]
    matching: list[dict[str, Any]]
    """Rows of the matching table, ready to print: column -> value."""
    mismatch: float
    """Largest difference between two models' parameters, relative."""
    sweep: list[dict[str, Any]]
    """Rows of a learning-rate sweep (group, lr, score, worst_seed, best, at_edge), empty without one."""
    versions: dict[str, str]
    """Packages, Python, machine, code digest, suite version."""
    config_yaml: str
    """The resolved configuration."""
    expected_cells: list[dict[str, Any]]
    """The planned grid: rows of task, haystack, key_format, value_format, control, length, depth, n per model; a mean is
    taken only over slices that are complete."""
    notes: list[str] = field(default_factory=list)
    """Cells that could not be built, and why; printed as they are."""
