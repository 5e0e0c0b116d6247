"""Runs of a grid that are one run: the same once settings that nothing reads are left out, such as those of a mixer that the
layout does not have, the width of MLPs where there are none, or positions that training draws for encodings without positions."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lcprobe.choices import canonical, choices_in
from lcprobe.config import Config
from lcprobe.files import digest_json
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import parts_of
from lcprobe.models.positional import POSITIONAL
from lcprobe.schema import plain
from lcprobe.studies.planning.axes import Axis, Labels
from lcprobe.studies.planning.initial_weights import START_LEFT_OUT


@dataclass(frozen=True)
class Draft:
    """One run of the product: its label on each axis and its config before matching. settings: what `settings_of` says of it.
    ignored_axes, partial_axes, reason: see `Applied`. source: labels of the run of the study that it starts from; sets_lr: whether train.lr is
    written in the config."""

    labels: Labels
    config: Config
    settings: str
    ignored_axes: tuple[int, ...] = ()
    partial_axes: tuple[int, ...] = ()
    reason: str = ""
    source: Labels | None = None
    sets_lr: bool = False


@dataclass(frozen=True)
class RunGroup:
    """One run: a draft that stands for all that are alike; its labels, "" on axes that change nothing; the labels of all."""

    draft: Draft
    labels: Labels
    members: tuple[Labels, ...]

    @property
    def name(self) -> str:
        """Labels, joined; "" where there are none."""
        return "-".join(filter(None, self.labels))

    @property
    def note(self) -> str:
        """Which labels are one run here, and which change nothing; "" where there are none."""
        places = [i for i, found in enumerate(zip(*self.members, strict=True)) if len(set(found)) > 1]
        if places:
            return (
                f"{', '.join('-'.join(member[i] for i in places) for member in self.members)} make the same run here"
            )
        alone = [label for label, kept in zip(self.draft.labels, self.labels, strict=True) if not kept]
        return f"{', '.join(alone)} changes nothing here" if alone else ""


def deduplicate(drafts: Sequence[Draft], axes: Sequence[Axis]) -> tuple[list[RunGroup], dict[str, list[Labels]]]:
    """The runs, and by reason the labels of those that are left out. drafts: those that others start from first.

    A run whose level says what its model cannot have is left out, unless it is another run of the study all the same.
    """
    keys: dict[Labels, str] = {}
    groups: dict[str, list[Draft]] = {}
    for draft in drafts:
        source = None if draft.source is None else keys.get(draft.source, START_LEFT_OUT)
        keys[draft.labels] = digest_json([draft.settings, source])
        groups.setdefault(keys[draft.labels], []).append(draft)
    runs, left_out, kept = [], {}, set()
    for key, members in groups.items():
        found = {member.labels for member in members}
        same = {i for i, axis in enumerate(axes) if len(axis.levels) > 1 and _any_level(found, i, axis)}
        sound = [member for member in members if same.issuperset(member.partial_axes)]
        first = min(sound or members, key=lambda member: len(member.ignored_axes) + len(member.partial_axes))
        why = "" if sound else first.reason
        if first.source is not None and keys.get(first.source) not in kept:
            why = START_LEFT_OUT
        if why:
            left_out.setdefault(why, []).extend(member.labels for member in members)
            continue
        kept.add(key)
        labels = tuple("" if i in same or i in first.ignored_axes else label for i, label in enumerate(first.labels))
        runs.append(RunGroup(first, labels, tuple(member.labels for member in members)))
    return runs, left_out


def _any_level(found: set[Labels], i: int, axis: Axis) -> bool:
    """Whether these runs are there at every level of axis number i."""
    return all((*some[:i], level, *some[i + 1 :]) in found for some, level in itertools.product(found, axis.levels))


def settings_of(config: Config, starts: bool) -> str:
    """Digest of what decides a run, without what nothing reads. starts: from a run of the study, which is not part of it.

    Raises ConfigError for a model that cannot be read.
    """
    train = plain(config.train) | ({"from": None} if starts else {})
    return digest_json({**plain(config), "train": train, "model": _model(config.model)})


def _model(config: ModelConfig) -> dict[str, Any]:
    """A model by what it is made of, however it is written."""
    solved = config.n_layers == "solve"
    parts = parts_of(replace(config, n_layers=None) if solved else config)
    carried = [layer.config for layer in parts.layers if layer.mixer.carries_encoding]
    encodings = [choice for settings in carried for choice in choices_in(settings) if choice.registry is POSITIONAL]
    reads = parts.added is not None or any(choice.cls.reads_positions for choice in encodings)
    rest = {
        k: v
        for k, v in canonical(config).items()
        if k not in ("layout", "attn_layer_idx", "mixers", "positional", "encodings")
    }
    return {
        **rest,
        "n_layers": "solve" if solved else None,
        "layers": [[layer.kind, canonical(layer.config), layer.mlp] for layer in parts.layers],
        "d_ff": config.d_ff if any(layer.mlp for layer in parts.layers) else None,
        "positions": canonical(config.positions) if reads else None,
        "added": canonical(parts.added),
    }
