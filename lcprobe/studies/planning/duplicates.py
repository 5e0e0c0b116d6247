"""Runs of a grid that are duplicates: equal once settings without effect are left out, such as those of a mixer that
the layout does not have, the width of MLPs where there are none, or positions drawn in training for encodings that
read no positions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lcprobe.choices import Choice, canonical, choices_in
from lcprobe.config import Config
from lcprobe.files import digest_json
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import ModelParts, parts_of
from lcprobe.models.positional import POSITIONAL
from lcprobe.schema import plain
from lcprobe.studies.planning.axes import Axis, Labels
from lcprobe.studies.planning.initial_weights import START_LEFT_OUT


@dataclass(frozen=True)
class Draft:
    """One run of the product: its label on each axis and its config before matching. settings: the digest by
    `settings_of`; ignored_axes, partial_axes, reason, not_extended: see `Applied`; source: labels of the run of the
    study that it starts from; sets_lr: whether the config sets train.lr; reference: labels of the run whose budget it
    has in common; kept: settings of the budget that the grid sets."""

    labels: Labels
    config: Config
    settings: str
    ignored_axes: tuple[int, ...] = ()
    partial_axes: tuple[int, ...] = ()
    reason: str = ""
    source: Labels | None = None
    sets_lr: bool = False
    not_extended: bool = False
    reference: Labels = ()
    kept: frozenset[str] = frozenset()


@dataclass(frozen=True)
class RunGroup:
    """Duplicate drafts as one run. draft: the one that is trained; labels: its own, "" on axes without effect;
    members: all labels."""

    draft: Draft
    labels: Labels
    members: tuple[Labels, ...]

    @property
    def name(self) -> str:
        """The labels joined with hyphens; "" where there are none."""
        return "-".join(filter(None, self.labels))

    @property
    def note(self) -> str:
        """Which labels give the same run, or have no effect; "" where there are none."""
        places = [i for i, labels in enumerate(zip(*self.members, strict=True)) if len(set(labels)) > 1]
        if places:
            same = ", ".join("-".join(member[i] for i in places) for member in self.members)
            return f"{same} give the same run"
        without_effect = [label for label, kept in zip(self.draft.labels, self.labels, strict=True) if not kept]
        return f"{', '.join(without_effect)} has no effect" if without_effect else ""


def deduplicate(drafts: Sequence[Draft], axes: Sequence[Axis]) -> tuple[list[RunGroup], dict[str, list[Labels]]]:
    """The distinct runs, and the labels of those that are left out, by reason. drafts: ordered so that a run comes
    after the one that it starts from.

    A run is left out where a level has settings that its model cannot have, unless it is a duplicate of a run without
    them.
    """
    keys: dict[Labels, str] = {}
    groups: dict[str, list[Draft]] = {}
    for draft in drafts:
        source = None if draft.source is None else keys.get(draft.source, START_LEFT_OUT)
        keys[draft.labels] = digest_json([draft.settings, source])
        groups.setdefault(keys[draft.labels], []).append(draft)
    runs, left_out, kept = [], {}, set()
    for key, members in groups.items():
        labels_of_all = {member.labels for member in members}
        same = {i for i, axis in enumerate(axes) if len(axis.levels) > 1 and _any_level(labels_of_all, i, axis)}
        sound = [member for member in members if same.issuperset(member.partial_axes)]
        first = min(sound or members, key=lambda member: len(member.ignored_axes) + len(member.partial_axes))
        reason = "" if sound else first.reason
        if first.source is not None and keys.get(first.source) not in kept:
            reason = START_LEFT_OUT
        if reason:
            left_out.setdefault(reason, []).extend(member.labels for member in members)
            continue
        kept.add(key)
        labels = tuple("" if i in same or i in first.ignored_axes else label for i, label in enumerate(first.labels))
        runs.append(RunGroup(first, labels, tuple(member.labels for member in members)))
    return runs, left_out


def _any_level(runs: set[Labels], i: int, axis: Axis) -> bool:
    """Whether the runs include every level of axis number i."""
    others = Counter((*run[:i], *run[i + 1 :]) for run in runs)
    return all(count == len(axis.levels) for count in others.values())


def settings_of(config: Config, starts: bool) -> str:
    """Digest of the settings that determine a run, without those that have no effect. starts: whether it starts from
    a run of the study, whose name is then left out.

    Raises ConfigError for a model that cannot be parsed.
    """
    train = plain(config.train) | ({"from": None} if starts else {})
    return digest_json({**plain(config), "train": train, "model": canonical_model(config.model)})


def canonical_model(config: ModelConfig) -> dict[str, Any]:
    """A model by its parts, however its config is written."""
    solved = config.n_layers == "solve"
    parts = parts_of(replace(config, n_layers=None) if solved else config)
    encodings = _carried(parts)
    reads = parts.added is not None or any(choice.cls.reads_positions for choice in encodings)
    rest = {
        k: v
        for k, v in canonical(config).items()
        if k not in ("layout", "attn_layer_idx", "mixers", "mlp", "positional", "encodings")
    }
    return {
        **rest,
        "n_layers": "solve" if solved else None,
        "layers": [
            [layer.kind, canonical(layer.config), canonical(layer.mlp), layer.beside] for layer in parts.layers
        ],
        "d_ff": config.d_ff if any(layer.mlp is not None for layer in parts.layers) else None,
        "parallel": config.parallel if any(layer.beside for layer in parts.layers) else None,
        "positions": canonical(config.positions) if reads else None,
        "added": canonical(parts.added),
    }


def encoding_names(config: ModelConfig) -> str:
    """The encodings that a model has, wherever they are set: `rope`, `rope+none`; `none` without any."""
    parts = parts_of(replace(config, n_layers=None) if config.n_layers == "solve" else config)
    added = [] if parts.added is None else [parts.added]
    return "+".join(dict.fromkeys(choice.name for choice in (*added, *_carried(parts)))) or "none"


def _carried(parts: ModelParts) -> list[Choice]:
    """The encodings of attention layers."""
    carried = [layer.config for layer in parts.layers if layer.mixer.carries_encoding]
    return [choice for settings in carried for choice in choices_in(settings) if choice.registry is POSITIONAL]
