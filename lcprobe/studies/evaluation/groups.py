"""Names of the groups and architectures of probed runs: what one study calls `mamba2` may be another model in
another."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from lcprobe.config import Config
from lcprobe.files import digest_json
from lcprobe.schema import plain
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.status import read_status

OF_THE_LENGTH = ("context_length", "tokens", "batch_tokens")
"""Settings of training that follow the training length where budgets are held equal."""
OF_THE_MACHINE = (
    "from", "from_", "accumulate", "compile", "accelerator", "devices", "threads", "checkpoint_every", "keep",
    "log_every", "probe_every",
)  # fmt: skip
"""Settings of training that say how and where it ran; `from` names a run, which has a seed of its own."""


class GroupNames(NamedTuple):
    """group: shared by runs that differ in their seed alone. architecture: by runs that differ in their training
    length too."""

    group: str
    architecture: str


def group_names(targets: Sequence[ProbeTarget]) -> list[GroupNames]:
    """The names of each target: those of its study, after the name of the study's folder where runs of several
    studies have one name and differ in more than it stands for."""
    given = []
    for target in targets:
        group = read_status(target.run_folder).get("group", target.name) if target.run_folder else target.name
        given.append(GroupNames(group, target.config.study.architecture or group))
    groups = _told_apart(targets, [names.group for names in given], _training)
    architectures = _told_apart(targets, [names.architecture for names in given], _training_at_any_length)
    return [GroupNames(*names) for names in zip(groups, architectures, strict=True)]


def _told_apart(targets: Sequence[ProbeTarget], names: list[str], settings: Callable[[Config], str]) -> list[str]:
    """The names, after a study's where two studies have one for runs whose settings differ. Inside a study the
    planner has named them."""
    of_study: dict[str, dict[str, str]] = {}
    for target, name in zip(targets, names, strict=True):
        of_study.setdefault(name, {}).setdefault(_study(target), settings(target.config))
    differ = {name for name, studies in of_study.items() if len({*studies.values()}) > 1}
    return [
        f"{_study(target)}.{name}" if name in differ else name for target, name in zip(targets, names, strict=True)
    ]


def _study(target: ProbeTarget) -> str:
    folder = target.run_folder or target.source.path
    return folder.parent.name


def _training(config: Config, left_out: Sequence[str] = ()) -> str:
    """Digest of everything that a run's weights depend on, its seed apart."""
    data = {key: value for key, value in plain(config.data).items() if key != "folder"}
    train = {key: value for key, value in plain(config.train).items() if key not in (*OF_THE_MACHINE, *left_out)}
    return digest_json([plain(config.model), data, train])


def _training_at_any_length(config: Config) -> str:
    """Digest of the same without what follows the training length."""
    return _training(replace(config, model=replace(config.model, context_length=None)), OF_THE_LENGTH)
