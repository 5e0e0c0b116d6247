"""The axes of a grid: lists of values, `seed: [0, 1]`, and labels with any settings under each; their product is the
study."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, get_type_hints

from lcprobe.config import Config
from lcprobe.errors import ConfigError
from lcprobe.files import check_name
from lcprobe.merging import DROP, assign
from lcprobe.schema import names_of

MAX_RUNS = 1000
"""Runs of a grid, at most: each is planned."""
ONLY_RUN = "run"
"""Name of the run of a study without a grid."""
SECTIONS = {name: hint for name, hint in get_type_hints(Config).items() if is_dataclass(hint)}
"""The top-level keys of a config that are mappings, by name."""
Labels = tuple[str, ...]
"""Labels of a run: one per axis."""


@dataclass(frozen=True)
class Axis:
    """One axis. name: dotted, as on the command line; levels: settings by label; written: whether the user named the
    labels."""

    name: str
    levels: dict[str, dict[str, Any]]
    written: bool

    def value(self, label: str) -> str | int | float | bool:
        """What the axis gives at one of its labels: the label that the user wrote, or the value itself where it is a
        number or text."""
        value: Any = self.levels[label]
        for key in () if self.written else self.name.split("."):
            value = value[key] if isinstance(value, Mapping) and key in value else label
        return value if isinstance(value, str | int | float | bool) else label

    @property
    def of_seeds(self) -> bool:
        """Whether its levels give nothing but the seed: their runs are those of one model."""
        patches = self.levels.values()
        return any(patches) and all({*patch} <= {"seed"} for patch in patches)

    @property
    def sets_training_length(self) -> bool:
        """Whether its levels give train.context_length."""
        return any("context_length" in (patch.get("train") or {}) for patch in self.levels.values())

    @property
    def mixes_model_and_training_length(self) -> bool:
        """Whether its levels give both, so that no runs differ in their training length alone."""
        return self.sets_training_length and any("layout" in (p.get("model") or {}) for p in self.levels.values())


def axes_of(grid: Mapping[str, Any], earlier: bool = False) -> list[Axis]:
    """The axes in the order of the config. earlier: with labels as earlier versions wrote them.

    Raises ConfigError for a malformed axis and for too many runs.
    """
    axes, label_of = [], _run_together if earlier else _label
    for name, levels in _flat(grid):
        key = f"grid.{name}"
        if isinstance(levels, Mapping) and levels:
            for label, patch in levels.items():
                check_name(key, str(label))
                if not isinstance(patch, Mapping):
                    raise ConfigError(f"{key}.{label}", patch, "a mapping of settings, such as {model: {...}}")
                _check_sections(patch, f"{key}.{label}")
            axes.append(Axis(name, {str(label): dict(patch) for label, patch in levels.items()}, True))
        elif isinstance(levels, list | tuple) and levels:
            axes.append(Axis(name, {label_of(name, level): _nested(name, level) for level in levels}, False))
            if len(axes[-1].levels) < len(levels):
                raise ConfigError(key, levels, "values with different labels")
        else:
            raise ConfigError(key, levels, "a list of values, or a mapping of labels to settings")
    total = math.prod(len(axis.levels) for axis in axes)
    if total > MAX_RUNS:
        raise ConfigError("grid", f"{total} runs", f"at most {MAX_RUNS}")
    return axes


def product(axes: Sequence[Axis]) -> Iterator[tuple[Labels, list[dict[str, Any]]]]:
    """Labels and patches of every run."""
    for combo in itertools.product(*(axis.levels.items() for axis in axes)):
        yield tuple(label for label, _ in combo), [patch for _, patch in combo]


def values_of(labels: Labels, axes: Sequence[Axis]) -> dict[str, str | int | float | bool]:
    """The value of a run on each axis that has an effect on it (its label there is not empty).

    By the last part of the axis' name where no other axis ends with it: `lr`.
    """
    last = [axis.name.rpartition(".")[2] for axis in axes]
    names = [short if last.count(short) == 1 else axis.name for short, axis in zip(last, axes, strict=True)]
    return {name: axis.value(label) for name, label, axis in zip(names, labels, axes, strict=True) if label}


def _flat(grid: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Axes by dotted name: `{train: {lr: [..]}}` is `train.lr`, as on the command line."""
    for name, levels in grid.items():
        nested = isinstance(levels, Mapping) and levels and all(isinstance(v, list) for v in levels.values())
        if nested:
            yield from _flat(levels, f"{before}{name}.")
        else:
            yield f"{before}{name}", levels


def _label(key: str, level: Any) -> str:
    """`s0` of a seed, else `positional=rope`: the last part of the key, and the value."""
    last = key.rsplit(".", 1)[-1]
    return _safe(f"s{_text(level)}" if last == "seed" else f"{last}={_text(level)}")


def _run_together(key: str, level: Any) -> str:
    """The label that studies of earlier versions have: `positionalrope`."""
    last, text = key.rsplit(".", 1)[-1], f"{level:g}" if isinstance(level, float) else str(level)
    return _safe(f"s{text}" if last == "seed" else f"{last}{text}")


def _text(level: Any) -> str:
    """A value of an axis as a part of a name; of a choice with settings, `rope-base=500`."""
    if isinstance(level, Mapping):
        settings = [f"{key}={_text(value)}" for key, value in level.items() if key != "type"]
        return "-".join([str(level["type"])] * ("type" in level) + settings)
    return f"{level:g}" if isinstance(level, float) else str(level)


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "._+=-" else "_" for c in name)[:60]


def _nested(key: str, level: Any) -> dict[str, Any]:
    try:
        patch = assign({}, key, level)
    except ConfigError:
        raise ConfigError(f"grid.{key}", level, "a key of the config, such as train.lr") from None
    _check_sections(patch, "grid")
    return patch


def _check_sections(patch: Mapping[str, Any], at: str) -> None:
    """Raises ConfigError naming `at` for a section of the config that is no mapping: levels are read before the runs
    that they make are checked."""
    for name, cls in SECTIONS.items():
        if name in patch and not isinstance(patch[name], Mapping) and patch[name] != DROP:
            raise ConfigError(f"{at}.{name}", patch[name], f"a mapping with keys {names_of(cls)}")
