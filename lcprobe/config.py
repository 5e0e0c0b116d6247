"""The whole configuration, and `load`: YAML files merged left to right, then key=value. Imports no torch.

Configs run no code: no `_target_`, no YAML tags, no resolver that reads the environment or files. `${train.lr}` is
the value of another key, `${times:300,${train.batch_tokens}}` a product: the tokens of 300 steps at any batch size.
"""

import math
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lcprobe.choices import Choice
from lcprobe.data.config import DataConfig
from lcprobe.dialect import read_yaml, write_yaml
from lcprobe.errors import ConfigError, listed, nearest_name, require
from lcprobe.files import check_name, check_path
from lcprobe.merging import PATH, Settings
from lcprobe.models.config import KernelsConfig, MatchConfig, ModelConfig
from lcprobe.models.extend.config import ExtendConfig
from lcprobe.probing.config import PUBLISHED, CompatConfig, ProbeConfig, PublishedModel
from lcprobe.schema import TOTAL, build, plain
from lcprobe.studies.launchers.config import LAUNCHERS
from lcprobe.training.config import TrainConfig

MAX_BYTES = 1 << 20
"""Bytes of a config file, at most."""
MAX_NODES = 20_000
"""Values of a config file with its aliases expanded, at most."""
MAX_DEPTH = 100
"""Levels of mappings and lists in each other, at most."""
MAX_SEEDS = 1 << 15
MAX_SHOWN_NAME = 60
"""Characters of a name that a report gives to a model."""


def check_seed(key: str, seed: int) -> None:
    """Raises ConfigError for a seed out of range."""
    require(key, seed, 0 <= seed < MAX_SEEDS, f"0 .. {MAX_SEEDS - 1}")


@dataclass(frozen=True)
class SweepConfig:
    """A learning-rate sweep over each architecture before the study."""

    lrs: list[float] = field(default_factory=list)
    """Peak learning rates to try, in ascending order; empty: no sweep."""
    tokens: Annotated[int, TOTAL] = 1_000_000
    """Training budget of one trial in tokens."""
    seeds: list[int] = field(default_factory=lambda: [0])
    """Seeds that every rate is tried with."""
    only: bool = False
    """Stop after the sweep, without training the study."""

    def check(self, at: str) -> None:
        """Raises ConfigError for rates that are not positive and ascending, for a single rate, and for seeds that are
        missing, out of range or there twice."""
        ordered = all(a < b for a, b in zip(self.lrs, self.lrs[1:], strict=False)) and all(lr > 0 for lr in self.lrs)
        require(f"{at}.lrs", self.lrs, ordered, "ascending numbers > 0")
        require(f"{at}.lrs", self.lrs, len(self.lrs) != 1, "two rates or more, or none")
        require(f"{at}.tokens", self.tokens, self.tokens >= 1, ">= 1")
        require(f"{at}.seeds", self.seeds, len(self.seeds) > 0, "at least one seed")
        for seed in self.seeds:
            check_seed(f"{at}.seeds", seed)
        require(f"{at}.seeds", self.seeds, len(set(self.seeds)) == len(self.seeds), "each seed once")


@dataclass(frozen=True)
class TunedConfig:
    """How train.lr was chosen, kept in a run's resolved config so that the config reproduces the run on its own."""

    how: str = "not swept"
    """How train.lr was chosen, as the report prints it; written by lcprobe."""
    identity: str = ""
    """Digest of the settings that `how` applies to; with other settings a run counts as not swept. Written by
    lcprobe."""


@dataclass(frozen=True)
class StudyConfig:
    """Name, folder and learning-rate sweep of a study."""

    name: str = "study"
    """Name of the study: its folder within study.folder, and its group in W&B."""
    folder: str = "runs"
    """Folder in which studies are kept."""
    models: list[Annotated[PublishedModel, PUBLISHED]] = field(default_factory=list)
    """Published models that evaluate.py probes beside the study's own runs: addresses such as `hf:ORG/NAME`, or
    mappings of their settings."""
    run: str | None = None
    """Name of the only run; written by lcprobe into a run's resolved config."""
    group: str | None = None
    """Name of the only run's model, without the seed; written by lcprobe into a run's resolved config."""
    plan_for: Literal["here", "a100", "h100", "h200"] = "here"
    """Machine that --plan estimates hours and memory for: this one (measured), or train.devices GPUs of the given
    kind."""
    architecture: str | None = None
    """Name of the only run's model, without seed and training length; written by lcprobe into a run's resolved
    config."""
    lr_sweep: SweepConfig = field(default_factory=SweepConfig)
    """Learning rates tried before training; each architecture is trained at its best one."""
    tuned_by: str | None = None
    """The lr_sweep.json of an earlier sweep of the same architectures and data, whose best rates are used. train.lr
    must not be set for these architectures."""
    tuned: TunedConfig = field(default_factory=TunedConfig)
    """How train.lr was chosen; written by lcprobe into a run's resolved config."""
    names: dict[str, str] = field(default_factory=dict)
    """Names that the report gives to models (to runs, groups of seeds, architectures) and to methods, in tables and
    figures too: `{mamba2: Mamba-2, yarn: YaRN}`. Records keep their own."""

    def check(self, at: str) -> None:
        """Raises ConfigError for names and paths that a file system cannot have, for an empty tuned_by, and for
        display names that are no short line."""
        for name, shown in self.names.items():
            short = 0 < len(shown.strip()) and len(shown) <= MAX_SHOWN_NAME and shown.isprintable()
            require(f"{at}.names.{name}", shown, short, f"one line of at most {MAX_SHOWN_NAME} characters")
        check_name(f"{at}.name", self.name)
        check_path(f"{at}.folder", self.folder)
        if self.tuned_by is not None:
            check_path(f"{at}.tuned_by", self.tuned_by)
        if self.run is not None:
            check_name(f"{at}.run", self.run)
        for name in ("group", "architecture"):
            if getattr(self, name) is not None:
                check_name(f"{at}.{name}", getattr(self, name))


@dataclass(frozen=True)
class TrackConfig:
    """Tracking with Weights & Biases, and others. CSV and JSON are always written."""

    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """Mode of W&B; auto: online where an API key is configured, else offline. It never prompts."""
    project: str = "lcprobe"
    """Project in W&B."""
    tags: list[str] = field(default_factory=list)
    """Tags added to every W&B run."""
    artifacts: Literal["none", "references", "files"] = "references"
    """Data set, checkpoints, records and report as artifacts of W&B, with what was made from what. references: where
    the files are, and their digests; files: checkpoints, records and report are uploaded."""
    alerts: bool = True
    """Alerts of W&B, once each: a run has stopped for good, all runs of a study are trained, a report is written."""
    system_metrics: bool = True
    """Use of processors, memory and disk, as W&B and trackio measure it."""
    also: list[Literal["tensorboard", "trackio"]] = field(default_factory=list)
    """Other trackers that get the same: tensorboard (event files in the study's folder), trackio. Each is an extra of
    that name: pip install 'lcprobe[trackio]'."""


@dataclass(frozen=True)
class Config:
    """The whole configuration."""

    study: StudyConfig = field(default_factory=StudyConfig)
    """Name, folder and learning-rate sweep of the study."""
    seed: int = 0
    """Seed of initialisation and data order."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model, which axes of the grid may vary."""
    match: MatchConfig = field(default_factory=MatchConfig)
    """How the models of a study are matched in size."""
    kernels: KernelsConfig = field(default_factory=KernelsConfig)
    """Backends of the ops."""
    data: DataConfig = field(default_factory=DataConfig)
    """Corpus, tokenizer and training mixture."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Budget, optimiser, schedule, precision and checkpoints."""
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    """Tasks, and grids of lengths, depths and formats to probe."""
    pe: ExtendConfig = field(default_factory=ExtendConfig)
    """Methods that change the positional encodings or states of trained models when they are probed."""
    compat: CompatConfig = field(default_factory=CompatConfig)
    """Faults of other people's code that trained models are probed with."""
    track: TrackConfig = field(default_factory=TrackConfig)
    """Tracking with Weights & Biases."""
    launcher: Annotated[Choice | None, LAUNCHERS] = None
    """What starts the processes that train or probe: local, slurm or ray, or a mapping with its settings, `{type:
    slurm, partition: gpu, time: 4h}`; null: this process does it, and where it has several GPUs to probe on, one for
    each. Not kept with runs: it changes nothing that is computed."""
    grid: dict[str, Any] = field(default_factory=dict)
    """Axes of the study, whose product is its runs: `key: [values]`, or `name: {label: {any settings}}`."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a seed out of range."""
        check_seed("seed", self.seed)


def load(files: Iterable[str], overrides: Iterable[str]) -> dict[str, Any]:
    """Merge files and `key=value` overrides into one plain mapping, interpolations resolved; `parse` checks it.

    Raises ConfigError naming the file or the override.
    """
    return whole(read_settings(files, overrides))


def whole(settings: Settings) -> dict[str, Any]:
    """Settings that are a config by themselves, interpolations resolved. Raises ConfigError as `load`."""
    return _interpolated(settings.on({}))


def read_settings(files: Iterable[str], overrides: Iterable[str]) -> Settings:
    """Files and `key=value` overrides as they are, to be laid on something. Raises ConfigError for what cannot be
    read."""
    layers: list[tuple[str, Any]] = [("", _read(file)) for file in files]
    for override in overrides:
        key, equals, text = override.partition("=")
        key = key.strip()
        if not equals or not PATH.fullmatch(key):
            allowed = "a .yaml file, key=value, or an option (--help lists them)"
            raise ConfigError("command line", override, allowed)
        layers.append((key, _value(key, text)))
    return Settings(tuple(layers))


def laid_on(base: Config, settings: Settings) -> Config:
    """A checked config with settings on top, whose interpolations may name every key of both. Raises ConfigError as
    `load` and `parse`."""
    return parse(_interpolated(settings.on(_escaped(plain(base)))))


def _interpolated(merged: dict[str, Any]) -> dict[str, Any]:
    """A mapping with its interpolations resolved."""
    if not _interpolations(merged):  # as in most configs: OmegaConf is slow
        return _copied(merged)
    for name in ("oc.env", "oc.create", "oc.deprecated", "oc.decode", "oc.dict.keys", "oc.dict.values"):
        OmegaConf.clear_resolver(name)
    OmegaConf.register_resolver("times", _times, replace=True)
    try:
        resolved = OmegaConf.to_container(OmegaConf.create(merged), resolve=True)
    except OmegaConfBaseException as error:
        allowed = f"${{...}} of a key that the files set ({_first_line(error)})"
        raise ConfigError(
            str(error.full_key or "config"), "an interpolation that cannot be resolved", allowed
        ) from None
    except RecursionError:
        raise ConfigError("config", "interpolations that refer to each other", "a value") from None
    assert isinstance(resolved, dict)
    return {str(k): v for k, v in resolved.items()}


def parse(mapping: Mapping[str, Any]) -> Config:
    """A checked Config from a plain mapping; a grid over training lengths gives it its first one where
    train.context_length is not set. Raises ConfigError at the first mistake."""
    names = {f.name for f in fields(Config)}
    for key in mapping:
        if key not in names:
            raise ConfigError(key, "an unknown key", listed(sorted(names)), nearest_name(key, names))
    train, first = mapping.get("train", {}), _first_training_length(mapping.get("grid"))
    if first is not None and isinstance(train, Mapping) and "context_length" not in train:
        mapping = {**mapping, "train": {**train, "context_length": first}}
    return build(Config, mapping)


def _first_training_length(grid: Any) -> Any:
    """The train.context_length of a grid's first run; None where no axis sets it."""
    for name, levels in grid.items() if isinstance(grid, Mapping) else ():
        if name == "train.context_length" and isinstance(levels, list) and levels:
            return levels[0]
        if name == "train" and isinstance(levels, Mapping) and isinstance(levels.get("context_length"), list):
            return next(iter(levels["context_length"]), None)
        level = next(iter(levels.values()), None) if isinstance(levels, Mapping) else None
        train = level.get("train") if isinstance(level, Mapping) else None
        if isinstance(train, Mapping) and "context_length" in train:
            return train["context_length"]
    return None


def to_yaml(config: Config | Mapping[str, Any]) -> str:
    """The resolved configuration as plain YAML."""
    return write_yaml(_escaped(plain(config)), width=120)


def _escaped(value: Any) -> Any:
    """Plain values whose texts are no interpolations when they are read again."""
    if isinstance(value, dict):
        return {key: _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_escaped(inner) for inner in value]
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", value) if isinstance(value, str) else value


def _read(file: str) -> dict[str, Any]:
    path = Path(file)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for
            raise ConfigError(file, "a pipe, socket or device", "a regular file")
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
        config = read_yaml(text, partial(_check_document, file)) or {}
        if "parameters" in config and {"program", "method", "command"} & set(config):
            raise ConfigError(file, "a sweep in W&B's format", f"a config; a sweep: lcprobe sweep {file}")
        _check_interpolations(config)
    except yaml.MarkedYAMLError as error:
        where = f"{file}, line {error.problem_mark.line + 1}" if error.problem_mark else file
        raise ConfigError(where, error.problem or "broken YAML", "plain YAML") from None
    except yaml.YAMLError:
        raise ConfigError(file, "broken YAML", "plain YAML") from None
    except (OmegaConfBaseException, ValueError, RecursionError) as error:
        raise ConfigError(file, _first_line(error), "plain YAML") from None
    return config


def _check_document(file: str, root: yaml.Node) -> None:
    """Raises ConfigError for too many values, and for what is no mapping. Aliases may repeat a mapping many times:
    counted as if expanded."""
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

    if size(root) > MAX_NODES:
        raise ConfigError(
            file, f"more than {MAX_NODES} values", "a smaller config (aliases count as often as they are used)"
        )
    if not isinstance(root, yaml.MappingNode):
        raise ConfigError(file, "no mapping at the top", "keys such as model, data, train, probe")


def _check_interpolations(value: Any) -> None:
    """Raises OmegaConfBaseException for a text that is a broken interpolation, ValueError as `_interpolations`."""
    for text in _interpolations(value):
        OmegaConf.create([text])


def _interpolations(value: Any) -> list[str]:
    """Texts with ${ in a value. Raises ValueError for one that is too large, or too deep, as is one in itself."""
    found, left, n = [], [(value, 0)], 0
    while left:
        one, depth = left.pop()
        n += 1
        if n > MAX_NODES or depth > MAX_DEPTH:
            raise ValueError(f"more than {MAX_NODES} values, or {MAX_DEPTH} levels")
        if isinstance(one, str) and "${" in one:
            found.append(one)
        elif isinstance(one, dict | list):
            left += [(inner, depth + 1) for inner in (one.values() if isinstance(one, dict) else one)]
    return found


def _copied(value: Any) -> Any:
    """Mappings and lists of their own, at every place."""
    if isinstance(value, dict):
        return {str(key): _copied(inner) for key, inner in value.items()}
    return [_copied(inner) for inner in value] if isinstance(value, list) else value


def _value(key: str, text: str) -> Any:
    try:
        value = read_yaml(text) if text.strip() else ""
        _check_interpolations(value)
        return value
    except (yaml.YAMLError, OmegaConfBaseException, ValueError):
        raise ConfigError(key, text, "a YAML value (quote text with special characters)") from None


def _times(*numbers: Any) -> Any:
    """Product of two numbers or more: the resolver `times`."""
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
