"""The plan of a study: grid -> runs, each with a stable name, matched sizes, cost, and estimates of time and memory.

    grid:
      seed: [0, 1]                         an axis of values: its name is a key of the config
      arch:                                an axis of labels: any settings under each
        mamba2: {model: {layout: mamba2 x 4}, train: {lr: 0.01}}
        transformerpp: {model: {layout: attention+mlp x 2}}

The product of the axes is the study; models are matched over the whole of it.
"""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lcprobe.config import Config, parse
from lcprobe.data.corpus import sources_of
from lcprobe.errors import ConfigError, inside
from lcprobe.files import check_name
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.matching import Matched, match, mismatch_of
from lcprobe.studies.applicable import applicable
from lcprobe.studies.config import SweepConfig
from lcprobe.studies.source import from_sibling, sibling, source_of
from lcprobe.tasks.presets import choose_task
from lcprobe.tasks.tokenizer import load_tokenizer
from lcprobe.training.initial_state import initial_state_of

MAX_RUNS = 10_000


@dataclass(frozen=True)
class Run:
    """One run: its name, the labels that make it, its resolved config, and its cost at the training length."""

    name: str
    group: str
    config: Config
    matched: Matched
    sets_lr: bool = False
    """Whether train.lr is written in the config, not left at its default."""

    @property
    def folder(self) -> Path:
        """runs/<study>/<run>."""
        return Path(self.config.study.folder) / self.config.study.name / self.name


@dataclass(frozen=True)
class StudyPlan:
    """All runs of a study, matched."""

    config: Config
    runs: list[Run]
    mismatch: float
    notes: tuple[str, ...] = ()
    """What the plan left out, and why."""

    @property
    def folder(self) -> Path:
        """runs/<study>."""
        return Path(self.config.study.folder) / self.config.study.name


def make_plan(mapping: Mapping[str, Any]) -> StudyPlan:
    """Expand the grid, match the models, check every run. Raises ConfigError at the first mistake."""
    base = parse(mapping)
    tokenizer = load_tokenizer(base.data.tokenizer, base.data.bos)
    _check_choices(base)
    drafts: list[tuple[str, str, Config]] = []
    sets_lr: dict[str, bool] = {}
    group_of: dict[str, str] = {}
    waits: set[str] = set()  # runs that start from another run of this study
    idle: dict[tuple[str, ...], list[str]] = {}
    left_out: dict[str, list[str]] = {}
    for labels, patches in _product(base.grid):
        applied = applicable(mapping, labels, patches)
        if applied.dropped:
            left_out.setdefault(applied.dropped, []).append("-".join(filter(None, labels)))
            continue
        labels, patches = applied.labels, applied.patches
        if applied.without:
            same = idle.setdefault(tuple(labels), [])
            same.append(applied.without)
            if len(same) > 1:
                continue
        merged = OmegaConf.create({**mapping, "grid": {}})  # type: ignore[arg-type]
        for patch in patches:
            merged = OmegaConf.merge(merged, OmegaConf.create(patch))
        plain_mapping = OmegaConf.to_container(merged)
        assert isinstance(plain_mapping, dict)
        try:
            config = parse(plain_mapping)  # type: ignore[arg-type]
        except ConfigError as error:
            where = f"grid ({', '.join(labels)}): {error.key}" if labels else error.key
            raise ConfigError(where, error.given, error.allowed, error.near) from None
        _check_choices(config)
        if config.model.vocab_size is None:
            config = replace(config, model=replace(config.model, vocab_size=tokenizer.vocab_size))
        elif config.model.vocab_size < tokenizer.vocab_size:
            raise ConfigError("model.vocab_size", config.model.vocab_size, f">= the tokenizer's {tokenizer.vocab_size}")
        if config.model.context_length is None:
            config = replace(config, model=replace(config.model, context_length=config.train.context_length))
        parts = [label for label in labels if label]
        name = "-".join(parts) if parts else (base.study.run or "run")
        axes = [axis for axis, _ in _flat(base.grid)]
        group = "-".join(p for p, axis in zip(labels, axes, strict=True) if p and axis != "seed") or base.study.group or name
        _check_training(config, ", ".join(parts))
        other = sibling(config, labels, [levels for _, levels in _flat(base.grid)])
        if other is not None:
            config = from_sibling(config, "-".join(filter(None, other)))
            waits.add(name)
        drafts.append((check_name("grid", name), group, config))
        sets_lr[name] = "lr" in plain_mapping.get("train", {})
        group_of |= {label: group_of.get(label, group) for label in parts}
    _unlike(drafts)
    drafts.sort(key=lambda draft: draft[0] in waits)
    # a seed changes no size: match one run of each group
    models = {group: config.model for _, group, config in drafts}
    rules = base.match
    if isinstance(rules.budget, str) and rules.budget not in models and rules.budget in group_of:
        rules = replace(rules, budget=group_of[rules.budget])  # a label names the first model that carries it
    matched = match(models, rules, drafts[0][2].train.context_length)
    runs = [_resolved(name, group, config, matched[group], sets_lr[name]) for name, group, config in drafts]
    for run in runs:
        if run.name not in waits:
            source_of(run.config)
    notes = [f"{'-'.join(filter(None, k))}: {', '.join(same)} change nothing here: one run" for k, same in idle.items()]
    notes += [f"left out, {why}: {', '.join(names)}" for why, names in left_out.items()]
    return StudyPlan(base, runs, mismatch_of(matched), tuple(notes))


def _check_training(config: Config, name: str) -> None:
    """Whether encodings can change and states be passed in training: tried on a model that holds no numbers."""
    train = config.train
    if train.switch is None and train.initial_state is None:
        return
    import torch

    sizes = {"d_model": config.model.d_model or 1024, "d_ff": config.model.d_ff or 8}
    n_layers = None if config.model.n_layers == "solve" else config.model.n_layers
    at = f"grid ({name}): train" if name else "train"
    with torch.device("meta"):
        model = LanguageModel(replace(config.model, n_layers=n_layers, **sizes))
        if train.initial_state is not None:
            initial_state_of(train.initial_state, model, f"{at}.initial_state")
        if train.switch is not None:
            with inside(f"{at}.switch"):
                model.recode(train.switch.positional)


def _check_choices(config: Config) -> None:
    """What only the chosen task or the disk can tell: settings of tasks, a corpus that is there."""
    sources_of(config.data.corpus)
    for name, recipe in config.data.recipes.items():
        choose_task(recipe.task, f"data.recipes.{name}.task")
    for name, task in config.probe.tasks.items():
        choose_task(task, f"probe.tasks.{name}")
    for grid in config.probe.grids:
        grid.tokens(config.train.context_length)
    if config.probe.context is not None:
        config.probe.context.tokens(config.train.context_length)


def _product(grid: Mapping[str, Any]) -> list[tuple[list[str], list[dict[str, Any]]]]:
    """(labels, patches) of every run."""
    axes: list[list[tuple[str, dict[str, Any]]]] = []
    for name, levels in _flat(grid):
        key = f"grid.{name}"
        if isinstance(levels, Mapping) and levels:
            for label, patch in levels.items():
                check_name(key, str(label))
                if not isinstance(patch, Mapping):
                    raise ConfigError(f"{key}.{label}", patch, "a mapping of settings, such as {model: {...}}")
            axes.append([(str(label), dict(patch)) for label, patch in levels.items()])
        elif isinstance(levels, list | tuple) and levels:
            axes.append([(_label(name, level), _nested(name, level)) for level in levels])
        else:
            raise ConfigError(key, levels, "a list of values, or a mapping of labels to settings")
    total = 1
    for axis in axes:
        total *= len(axis)
    if total > MAX_RUNS:
        raise ConfigError("grid", f"{total} runs", f"at most {MAX_RUNS}")
    return [([label for label, _ in combo], [patch for _, patch in combo]) for combo in itertools.product(*axes)]


def _flat(grid: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Axes by dotted name: `{train: {lr: [..]}}` is `train.lr`, as on the command line."""
    for name, levels in grid.items():
        nested = isinstance(levels, Mapping) and levels and all(isinstance(v, list) for v in levels.values())
        if nested:
            yield from _flat(levels, f"{before}{name}.")
        else:
            yield f"{before}{name}", levels


def _label(key: str, level: Any) -> str:
    last = key.rsplit(".", 1)[-1]
    text = f"{level:g}" if isinstance(level, float) else str(level)
    name = f"s{text}" if last == "seed" else f"{last}{text}"
    return "".join(c if c.isalnum() or c in "._+-" else "_" for c in name)[:60]


def _nested(key: str, level: Any) -> dict[str, Any]:
    made = OmegaConf.create({})
    try:
        OmegaConf.update(made, key, level, force_add=True)
    except OmegaConfBaseException:
        raise ConfigError(f"grid.{key}", level, "a key of the config, such as train.lr") from None
    return OmegaConf.to_container(made)  # type: ignore[return-value]


def _unlike(drafts: list[tuple[str, str, Config]]) -> None:
    """What makes runs a study must be equal in all of them."""
    names = [name for name, _, _ in drafts]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError("grid", f"two runs called {name}", "labels that differ")
    first = drafts[0][2]
    for name, _, config in drafts[1:]:
        for key in ("study", "probe", "pe", "match", "track"):
            if getattr(config, key) != getattr(first, key):
                raise ConfigError(f"grid ({name}): {key}", "a value of its own", "model, data, train and seed only")


def _resolved(name: str, group: str, config: Config, matched: Matched, sets_lr: bool) -> Run:
    """The config that, run alone and from anywhere, makes this run again: what a sweep gives is written into it by `tune`."""
    resolved = replace(
        config,
        model=matched.config,
        study=replace(config.study, run=name, group=group, lr_sweep=SweepConfig(), tuned_by=None),
        match=replace(config.match, budget=None),
        grid={},
    )
    return Run(name, group, resolved, matched, sets_lr)
