"""What can be set about a study: its runs, its folder, its sweep, its tracking. Imports no torch."""

from dataclasses import dataclass, field
from typing import Literal

from lcprobe.errors import require
from lcprobe.files import check_name


@dataclass(frozen=True)
class SweepConfig:
    """A learning-rate sweep for each architecture before the study."""

    lrs: list[float] = field(default_factory=list)
    """Peak learning rates to try, ascending; empty: no sweep."""
    tokens: int = 1_000_000
    """Budget of one trial."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Every rate is tried with each of these."""
    only: bool = False
    """Stop after the sweep."""

    def check(self, at: str) -> None:
        """Raises ConfigError for rates that are not ascending and positive."""
        ordered = all(a < b for a, b in zip(self.lrs, self.lrs[1:], strict=False)) and all(lr > 0 for lr in self.lrs)
        require(f"{at}.lrs", self.lrs, ordered, "ascending numbers > 0")
        require(f"{at}.lrs", self.lrs, len(self.lrs) != 1, "two rates or more, or none")
        require(f"{at}.tokens", self.tokens, self.tokens >= 1, ">= 1")
        require(f"{at}.seeds", self.seeds, len(self.seeds) > 0, "at least one seed")


@dataclass(frozen=True)
class TunedConfig:
    """How train.lr was chosen: kept in the resolved copy beside each run, so that the copy is a run of its own."""

    how: str = "not swept"
    """As the report prints it."""
    identity: str = ""
    """Digest of the settings that it is true of; under others the run is `not swept`."""


@dataclass(frozen=True)
class StudyConfig:
    """The study as a whole."""

    name: str = "study"
    """Folder name under `folder`, and group in W&B."""
    folder: str = "runs"
    """Where studies are kept."""
    run: str | None = None
    """Name of the only run; set in the resolved copy beside each run."""
    group: str | None = None
    """Model of the only run, whatever its seed; set in the resolved copy."""
    plan_for: Literal["here", "a100", "h100", "h200"] = "here"
    """Machine that `--plan` estimates hours for: this one (measured), or train.devices of these GPUs."""
    lr_sweep: SweepConfig = field(default_factory=SweepConfig)
    """Tried before training; the best rate of each architecture is used."""
    tuned_by: str | None = None
    """A lr_sweep.json of an earlier sweep of the same architectures and data: its best rates are used and cited.
    Not beside a train.lr for one of these."""
    tuned: TunedConfig = field(default_factory=TunedConfig)
    """How train.lr was chosen; set in the resolved copy."""

    def check(self, at: str) -> None:
        """Raises ConfigError for names that cannot be folders, and for an empty tuned_by."""
        check_name(f"{at}.name", self.name)
        require(f"{at}.tuned_by", self.tuned_by, self.tuned_by is None or bool(self.tuned_by.strip()), "a lr_sweep.json, or null")
        if self.run is not None:
            check_name(f"{at}.run", self.run)
        if self.group is not None:
            check_name(f"{at}.group", self.group)


@dataclass(frozen=True)
class TrackConfig:
    """Weights & Biases. CSV and JSON are always written."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """auto: online when a key is configured, else offline; never a prompt."""
    project: str = "lcprobe"
    """W&B project."""
    tags: list[str] = field(default_factory=list)
    """Added to the tags of every run."""
    checkpoints: bool = False
    """Upload the final checkpoint as an artifact (offline: a copy beside the run)."""
