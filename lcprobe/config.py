"""One schema from all rooms, and `load`: YAML files merged left to right, then key=value. Without torch.

No code runs from a config: no `_target_`, no tags, no resolver that reads the environment or files. `${train.lr}` is the value of
another key, `${times:300,${train.batch_tokens}}` a product: 300 steps' tokens, whatever a step is.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lcprobe.data.config import DataConfig
from lcprobe.errors import ConfigError, nearest_name, require
from lcprobe.files import check_name
from lcprobe.models.config import KernelsConfig, MatchConfig, ModelConfig
from lcprobe.models.extend.config import ExtendConfig
from lcprobe.probing.config import ProbeConfig
from lcprobe.schema import build, plain
from lcprobe.training.config import TrainConfig

MAX_BYTES = 1 << 20
MAX_NODES = 20_000


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
        require(
            f"{at}.tuned_by",
            self.tuned_by,
            self.tuned_by is None or bool(self.tuned_by.strip()),
            "a lr_sweep.json, or null",
        )
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


@dataclass(frozen=True)
class Config:
    """Everything that can be set."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """The study as a whole."""
    seed: int = 0
    """Of initialisation and data order."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model; axes of the grid vary it."""
    match: MatchConfig = field(default_factory=MatchConfig)
    """How models are made equal."""
    kernels: KernelsConfig = field(default_factory=KernelsConfig)
    """Implementations of the ops."""
    data: DataConfig = field(default_factory=DataConfig)
    """Corpus, tokenizer, training mixture."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Budget, optimiser, schedule."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Tasks and grids."""
    pe: ExtendConfig = field(default_factory=ExtendConfig)
    """Changes to trained models when they are probed."""
    track: TrackConfig = field(default_factory=TrackConfig)
    """W&B."""
    grid: dict[str, Any] = field(default_factory=dict)
    """Axes of the study; their product is its runs. `key: [values]`, or `name: {label: {any settings}}`."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a negative seed."""
        require("seed", self.seed, 0 <= self.seed < 2**15, "0 .. 32767")


def load(files: Iterable[str], overrides: Iterable[str]) -> dict[str, Any]:
    """Merge files and `key=value` overrides into one plain mapping, interpolations resolved; `parse` checks it.

    Raises ConfigError naming the file or the override.
    """
    for name in ("oc.env", "oc.create", "oc.deprecated", "oc.decode", "oc.dict.keys", "oc.dict.values"):
        OmegaConf.clear_resolver(name)
    OmegaConf.register_resolver("times", _times, replace=True)
    merged: Any = OmegaConf.create({})
    for file in files:
        merged = OmegaConf.merge(merged, _read(file))
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError("command line", override, "a .yaml file, key=value, or an option (--help lists them)")
        try:
            OmegaConf.update(merged, key, _value(key, text), merge=False, force_add=True)
        except (OmegaConfBaseException, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ConfigError(key, text, f"a value for an existing place ({_first_line(error)})") from None
    try:
        made = OmegaConf.to_container(merged, resolve=True)
    except OmegaConfBaseException as error:
        allowed = f"${{...}} of a key that the files set ({_first_line(error)})"
        raise ConfigError(
            str(error.full_key or "config"), "an interpolation that cannot be resolved", allowed
        ) from None
    except RecursionError:
        raise ConfigError("config", "interpolations that refer to each other", "a value") from None
    assert isinstance(made, dict)
    return {str(k): v for k, v in made.items()}


def parse(mapping: Mapping[str, Any]) -> Config:
    """A checked Config from a plain mapping. Raises ConfigError at the first mistake."""
    names = {f.name for f in fields(Config)}
    for key in mapping:
        if key not in names:
            raise ConfigError(key, "an unknown key", " | ".join(sorted(names)), nearest_name(key, names))
    return build(Config, mapping)


def to_yaml(config: Config | Mapping[str, Any]) -> str:
    """The resolved configuration as plain YAML."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True, width=120)


def _read(file: str) -> DictConfig:
    path = Path(file)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(file, f"{path.stat().st_size} bytes", f"a config of at most {MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("config file", file, "an existing .yaml file", _near_file(path)) from None
    except UnicodeDecodeError as error:
        raise ConfigError(file, f"a byte at {error.start} that is not UTF-8", "UTF-8 text") from None
    except OSError as error:
        raise ConfigError("config file", file, f"a readable .yaml file ({error.strerror})") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        _check_size(file, root)
        if root is not None and not isinstance(root, yaml.MappingNode):
            raise ConfigError(file, "no mapping at the top", "keys such as model, data, train, probe")
        made = OmegaConf.create(text)
    except yaml.MarkedYAMLError as error:
        where = f"{file}, line {error.problem_mark.line + 1}" if error.problem_mark else file
        raise ConfigError(where, error.problem or "broken YAML", "plain YAML") from None
    except yaml.YAMLError:
        raise ConfigError(file, "broken YAML", "plain YAML") from None
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(file, _first_line(error), "plain YAML") from None
    return made if isinstance(made, DictConfig) else OmegaConf.create({})


def _check_size(file: str, root: yaml.Node | None) -> None:
    """Aliases may refer to a mapping many times over: count what would be expanded."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MAX_NODES  # an alias inside itself
            children: list[yaml.Node] = []
            if isinstance(node, yaml.MappingNode):
                children = [n for pair in node.value for n in pair]
            elif isinstance(node, yaml.SequenceNode):
                children = node.value
            sizes[id(node)] = 1 + sum(map(size, children))
        return sizes[id(node)]

    if root is not None and size(root) > MAX_NODES:
        raise ConfigError(
            file, f"more than {MAX_NODES} values", "a smaller config (aliases count as often as they are used)"
        )


def _value(key: str, text: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.create(f"value: {text}" if text.strip() else "value: ''"))["value"]  # type: ignore[index, call-overload]
    except (yaml.YAMLError, OmegaConfBaseException, ValueError):
        raise ConfigError(key, text, "a YAML value (quote text with special characters)") from None


def _times(*numbers: Any) -> Any:
    """Their product."""
    if len(numbers) < 2 or not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        raise ValueError("times takes two numbers or more")
    return math.prod(numbers)


def _near_file(path: Path) -> str | None:
    folder = path.parent
    names = [p.name for p in folder.glob("*.yaml")] if folder.is_dir() else []
    near = nearest_name(path.name, names)
    return str(folder / near) if near else None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
