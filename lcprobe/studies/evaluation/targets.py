"""From the folders and addresses that a command is given to the models that it probes."""

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lcprobe.config import Config, load, parse
from lcprobe.errors import CheckpointError, ConfigError, DataError, Said
from lcprobe.files import has_weights
from lcprobe.probing.config import PublishedModel, ServerConfig
from lcprobe.studies.evaluation.published import is_published, published_model
from lcprobe.studies.evaluation.sources import Source, TrainedCheckpoint
from lcprobe.studies.planning.axes import ONLY_RUN, axes_of
from lcprobe.studies.status import in_this_version, read_run_config
from lcprobe.tasks.text.chat_template import chat_template_of
from lcprobe.tasks.text.templates import PromptTemplate
from lcprobe.training.checkpoint import check_config, damage_of, latest

Named = Path | PublishedModel
"""What a command is given: a folder, or a published model by its address."""
NOT_OF_TRAINING = ("probe", "pe", "compat", "track", "kernels")
"""Sections of the config that say nothing about what was trained."""


@dataclass(frozen=True)
class ProbeTarget:
    """A model to probe. config: of its run; of a published model, what corresponds to it. template: its own chat
    template; None: it has none."""

    name: str
    source: Source
    config: Config
    template: PromptTemplate | None = None

    @property
    def run_folder(self) -> Path | None:
        """The folder of the run that it comes from; None where it is not in one."""
        return self.source.run_folder


def find_targets(named: Sequence[Named], server: ServerConfig | None = None) -> list[ProbeTarget]:
    """Targets of study, run and checkpoint folders, the runs of a study in the order of its grid, and published
    models. A run or checkpoint is probed as its own config says, the runs of a study as its study.yaml says, which
    train.py writes again when its config has changed. server: `probe.server`, for those that a server has.

    Raises ConfigError for another folder, CheckpointError for a damaged one, DataError for a damaged study.yaml.
    """
    targets: list[ProbeTarget] = []
    asked = ServerConfig() if server is None else server
    for folder in named:
        if isinstance(folder, PublishedModel):
            targets.append(_published(folder, asked))
        elif is_published(folder):
            targets.append(_published(PublishedModel(str(folder)), asked))
        elif has_weights(folder):
            run_folder = folder.parent.parent if folder.parent.name == "checkpoints" else None
            targets.append(_target(folder, run_folder))
        elif (folder / "checkpoints").is_dir():
            checkpoint = latest(folder / "checkpoints")
            if checkpoint is None:
                raise CheckpointError(f"{folder}: no checkpoint yet; allowed: a run that was trained")
            targets.append(_target(checkpoint, folder))
        elif is_study(folder):
            runs = runs_of_study(folder)[0]
            if not runs:
                raise CheckpointError(
                    f"{folder}: no trained run yet; allowed: train.py {folder / 'study.yaml'} first"
                )
            targets += _probed_as(folder, find_targets(runs))
        else:
            if (folder / "report.json").is_file():
                raise CheckpointError(f"{folder}: a report without runs; allowed: a folder with runs or a checkpoint")
            allowed = "a config, an address such as hf:ORG/NAME, or the folder of a study, run or checkpoint"
            raise ConfigError("command line", str(folder), allowed)
    _check_each_once(targets)
    names = [t.name for t in targets]
    ambiguous = {n for n in names if names.count(n) > 1}
    if ambiguous:  # runs of two studies: their folders tell them apart
        targets = [replace(t, name=_long_name(t)) if t.name in ambiguous else t for t in targets]
    names = [t.name for t in targets]
    targets = [replace(t, name=_at_step(t)) if names.count(t.name) > 1 else t for t in targets]
    names = [t.name for t in targets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError("study.models", f"{twice} twice", "each model once, or {address: ..., name: ...} for each")
    return targets


def _probed_as(study: Path, targets: Iterable[ProbeTarget]) -> list[ProbeTarget]:
    """Runs of a study with the settings of its study.yaml that are not about training."""
    own = parse(in_this_version(load([str(study / "study.yaml")], [])))
    settings = {name: getattr(own, name) for name in NOT_OF_TRAINING}

    def changed(config: Config) -> Config:
        return replace(config, **settings, study=replace(config.study, names=own.study.names))

    return [replace(target, config=changed(target.config)) for target in targets]


def _check_each_once(targets: Sequence[ProbeTarget]) -> None:
    """Raises ConfigError for one checkpoint twice, by whatever paths: its numbers would be those of two models."""
    seen: dict[Path, Path] = {}
    for path in (t.source.path for t in targets if t.source.published is None):
        other = seen.setdefault(path.resolve(), path)
        if other is not path:
            given = Said(f"{path} is {other} again" if str(path) != str(other) else f"{path} is given twice")
            raise ConfigError("command line", given, "each run, or checkpoint, once")


def _long_name(target: ProbeTarget) -> str:
    folder = target.run_folder or target.source.path
    tail = f"@{folder.name}" if target.run_folder is None and target.source.published is None else ""
    return f"{folder.parent.name}.{folder.name}{tail}"


def _at_step(target: ProbeTarget) -> str:
    """The name of one of several checkpoints of a run; a run, and a published model, as it is."""
    trained = target.run_folder is not None and target.source.path.parent.name == "checkpoints"
    return f"{target.name}@{target.source.path.name}" if trained else target.name


def _published(given: PublishedModel, server: ServerConfig) -> ProbeTarget:
    """A published model with the chat template in its folder, or in that of its tokenizer."""
    name, source, config = published_model(given, server)
    template = chat_template_of(source.path)
    if template is None and Path(config.data.tokenizer).is_dir():
        template = chat_template_of(Path(config.data.tokenizer))
    return ProbeTarget(name, source, config, template)


def _target(checkpoint: Path, run_folder: Path | None) -> ProbeTarget:
    damage = damage_of(checkpoint)
    if damage:
        raise CheckpointError(f"{checkpoint}: {damage}; allowed: a checkpoint as train.py wrote it")
    check_config(checkpoint)
    config = parse(read_run_config(checkpoint))
    name = config.study.run or (run_folder or checkpoint).name
    return ProbeTarget(name, TrainedCheckpoint(checkpoint, run_folder), config)


def runs_of_study(folder: Path) -> tuple[list[Path], list[Path]]:
    """The folders of trained runs of a study, and those in its folder that study.yaml does not have: of an earlier
    configuration. Raises as `in_order_of_grid`."""
    found = (p.parent for p in folder.glob("*/config.yaml") if (p.parent / "checkpoints").is_dir())
    return in_order_of_grid(folder / "study.yaml", found)


def runs_not_in_study(folders: Iterable[Named]) -> list[str]:
    """A note for each study among the folders that has runs of an earlier configuration."""
    notes = []
    for folder in (one for one in folders if isinstance(one, Path)):
        others = runs_of_study(folder)[1] if is_study(folder) else []
        if others:
            names = ", ".join(run.name for run in others)
            notes.append(f"not probed, not in {folder / 'study.yaml'}: {names} (to probe one, name its folder)")
    return notes


def is_study(folder: Path) -> bool:
    """Whether a folder is that of a study, and no run's or checkpoint's."""
    is_run = (folder / "checkpoints").is_dir() or has_weights(folder)
    return (folder / "study.yaml").is_file() and not is_run


def in_order_of_grid(study: Path, runs: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Run folders in the order in which a study's file writes its grid, and those that the grid does not have, in the
    order of their names.

    Raises DataError for a file that is no study, ConfigError for a malformed grid.
    """
    try:
        written = load([str(study)], [])
    except ConfigError:
        raise DataError(f"{study}: not readable; allowed: a study.yaml as train.py wrote it") from None
    places: dict[str, tuple[int, tuple[int, ...]]] = {}
    for earlier in (False, True):
        axes = axes_of(written.get("grid") or {}, earlier)
        levels = [[*enumerate(axis.levels), (0, "")] for axis in axes]
        for combo in itertools.product(
            *levels
        ):  # a name leaves out the labels of axes that have no effect on the run
            labels = [label for _, label in combo if label]
            place = len(combo) - len(labels), tuple(i for i, _ in combo)
            name = "-".join(labels) or ONLY_RUN
            places[name] = min(place, places.get(name, place))
    runs = sorted(runs, key=_natural)
    own = sorted((run for run in runs if run.name in places), key=lambda run: places[run.name][1])
    return own, [run for run in runs if run.name not in places]


def _natural(folder: Path) -> list[tuple[int, str]]:
    """Sorts L64 before L128: the parts of a name, numbers by their value."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", folder.name)]
