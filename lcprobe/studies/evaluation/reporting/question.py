"""The question of a report: which models were probed, and with what. How and where it ran is no part of it."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lcprobe.config import Config
from lcprobe.errors import ConfigError
from lcprobe.files import digest_json
from lcprobe.models.extend.config import ExtendConfig
from lcprobe.probing.config import CompatConfig, ProbeConfig
from lcprobe.schema import build, plain
from lcprobe.studies.evaluation.targets import ProbeTarget, is_study, runs_of_study
from lcprobe.training.checkpoint import checkpoints
from lcprobe.words import and_list, counted

OTHER_SETTINGS = (
    "batch_tokens", "chunk", "cache_gb", "split", "context_parallel", "hang_minutes", "while_training", "policies",
    "harness", "frozen", "server", "export",
)  # fmt: skip
"""Settings of `probe` that change no number of the report: of the machine, and of other commands."""
NAMED_TASKS = 3
"""Tasks up to which a question's name has each."""
MAX_NAME = 60


@dataclass(frozen=True)
class Question:
    """models: folders of studies, runs and checkpoints as seen from the folder with the records, and names of
    published models; `.` is everything in that folder, whatever of it is trained by now. probe, pe, compat: as in the
    config."""

    models: list[str]
    probe: ProbeConfig
    pe: ExtendConfig
    compat: CompatConfig

    @property
    def digest(self) -> str:
        """Digest of all of it."""
        return digest_json(plain(self))

    @property
    def name(self) -> str:
        """A folder's name: tasks, methods, and the beginning of the digest: `multikey+vt-yarn-3fa2c1`."""
        tasks = self._tasks
        parts = ["+".join(tasks) if len(tasks) <= NAMED_TASKS else f"{len(tasks)}-tasks"]
        parts += ["+".join(method.label for method in self.pe.methods())] if self.pe.methods() else []
        words = re.sub(r"[^A-Za-z0-9+]+", "-", "-".join(parts))[:MAX_NAME].strip("+-") or "report"
        return f"{words}-{self.digest[:6]}"

    @property
    def tasks_text(self) -> str:
        """The tasks in words: `single, multikey and sentences`; of many their number."""
        tasks = self._tasks
        return and_list(tasks) if len(tasks) <= NAMED_TASKS else counted(len(tasks), "task")

    @property
    def _tasks(self) -> list[str]:
        return list(dict.fromkeys(name for grid in self.probe.grids for name in grid.tasks or self.probe.tasks))

    def differs_in(self, other: "Question") -> list[str]:
        """Keys in which another question differs: `models`, `probe.grids`, `pe.extend`."""
        keys = [] if self.models == other.models else ["models"]
        for section in ("probe", "pe", "compat"):
            mine, others = plain(getattr(self, section)), plain(getattr(other, section))
            keys += [f"{section}.{key}" for key in mine if mine[key] != others[key]]
        return keys


def question_of(targets: Sequence[ProbeTarget], config: Config, home: Path) -> Question:
    """What is asked of some models with a config. home: the folder with the records."""
    unset = ProbeConfig()
    probe = replace(config.probe, **{name: getattr(unset, name) for name in OTHER_SETTINGS})
    return Question(_models(targets, home), probe, config.pe, config.compat)


def read_question(written: Mapping[str, Any] | None) -> Question | None:
    """A question from report.json; None where an older version wrote no question, or one that is none any more."""
    if written is None:
        return None
    try:
        return build(Question, written)
    except ConfigError:
        return None


def _models(targets: Sequence[ProbeTarget], home: Path) -> list[str]:
    """The models as they were given: a study whose trained runs are all there is one of them."""
    runs = {t.run_folder.resolve() for t in targets if t.run_folder is not None}
    whole: dict[Path, bool] = {}
    for run in runs:
        study = run.parent
        if study not in whole:
            trained = {path.resolve() for path in runs_of_study(study)[0]} if is_study(study) else set()
            whole[study] = bool(trained) and trained <= runs
    found: list[str] = []
    for target in targets:
        path, run = target.source.path.resolve(), target.run_folder
        if run is None:
            published = target.source.published is not None
            found.append(f"{target.name} ({path.name})" if published else os.path.relpath(path, home.resolve()))
        elif path != checkpoints(path.parent)[0][1]:
            found.append(os.path.relpath(path, home.resolve()))
        else:
            run = run.resolve()
            found.append(os.path.relpath(run.parent if whole[run.parent] else run, home.resolve()))
    return sorted(set(found))
