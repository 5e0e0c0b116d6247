"""Trackers: CSV always, W&B through Lightning's logger where it is available. Neither can stop a run.

W&B: group = study, job types train and probe, every row with its own x-axis (`tokens`, `probe/length`), never W&B's
step.
"""

import csv
import io
import logging
import math
import netrc
import os
import re
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lcprobe.config import TrackConfig
from lcprobe.files import read_json, write_atomic, write_json
from lcprobe.tracking import Tracker

log = logging.getLogger(__name__)


class CsvTracker(Tracker):
    """metrics.csv: one row per call, columns as they appear. Rows past `tokens` are of an interrupted run and are
    dropped."""

    def __init__(self, path: Path, tokens: int):
        self._path = path
        self.rows = [row for row in read_metrics(path) if row.get("tokens", 0) <= tokens]
        self._columns = list(dict.fromkeys(name for row in self.rows for name in row))
        self._rewrite()

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Append a row; a new column rewrites the file."""
        self.rows.append(dict(values))
        fresh = [name for name in values if name not in self._columns]
        if fresh:
            self._columns += fresh
            self._rewrite()
            return
        with open(self._path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([values.get(name, "") for name in self._columns])

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Nothing to do: the report writes its own CSV files."""

    def figure(self, name: str, png: Path) -> None:
        """Nothing to do: figures are files already."""

    def summary(self, values: Mapping[str, Any]) -> None:
        """Nothing to do: status.json has these."""

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Nothing to do: the files are on disk already."""

    def finish(self) -> None:
        """Nothing to do: rows are written as they come."""

    def _rewrite(self) -> None:
        if not self._columns:
            self._path.unlink(missing_ok=True)
            return
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(self._columns)
        writer.writerows([row.get(name, "") for name in self._columns] for row in self.rows)
        write_atomic(self._path, text.getvalue())


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Rows of metrics.csv, without empty cells; an incomplete last line is left out."""
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    rows = []
    for line in lines[1:]:
        try:
            rows.append({name: float(cell) for name, cell in zip(lines[0], line, strict=True) if cell != ""})
        except ValueError:
            continue
    return rows


class WandbTracker(Tracker):
    """One W&B run, through Lightning's WandbLogger. After any failure it does nothing, and the run continues.

    Its id is kept beside the run (wandb.json), so that a training run that is resumed, or a study that is probed
    again, is no second run in W&B. rows: those of metrics.csv when training goes on; what W&B does not have of them
    is logged first: online the last ones, offline all, so that the newest offline folder is whole.
    """

    def __init__(
        self,
        config: TrackConfig,
        folder: Path,
        *,
        name: str,
        group: str,
        job_type: str,
        tags: list[str],
        facts: dict[str, Any],
        rows: Sequence[Mapping[str, float | int]] = (),
    ):
        self._run: Any = None
        self._logged = -1.0
        """Up to how many tokens W&B has the rows already."""
        try:
            os.environ.setdefault("WANDB_SILENT", "true")  # its advice would mix with this program's output
            os.environ.setdefault("HOME", _home())  # without one its log goes to stderr
            import wandb
            from lightning.pytorch.loggers import WandbLogger
            from lightning_utilities.core.rank_zero import rank_zero_only

            rank_zero_only.rank = 0  # this process tracks, whatever an allocation's SLURM_PROCID says
            self._wandb = wandb
            folder.mkdir(parents=True, exist_ok=True)
            self._run = WandbLogger(
                experiment=wandb.init(
                    name=name,
                    project=config.project,
                    dir=str(folder),
                    mode="online" if wandb_mode(config) == "online" else "offline",
                    id=_run_id(folder / "wandb.json", job_type),
                    resume="allow" if job_type == "train" else None,  # the probe's run has its latest results only
                    group=group,
                    job_type=job_type,
                    tags=[*tags, *config.tags],
                    config=facts,
                    reinit="create_new",
                    settings=wandb.Settings(silent=True, console="off", init_timeout=30),
                )
            ).experiment
            self._run.define_metric("tokens")
            self._run.define_metric("train/*", step_metric="tokens")
            self._run.define_metric("probe/length")
            self._run.define_metric("probe/*", step_metric="tokens" if job_type == "train" else "probe/length")
            if self._run.resumed:
                self._logged = float(self._run.summary.get("tokens", -1))
            for row in rows:
                self.metrics(row)
        except Exception as error:  # wandb raises its own errors, OSError and others
            self._fail(error)

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Log a row, without W&B's step, unless W&B has it from before an interruption."""
        if values.get("tokens", math.inf) > self._logged:
            self._try(lambda run: run.log(dict(values)))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows as a W&B table."""
        if rows:
            columns: list[Any] = list(rows[0])
            data: list[Any] = [[_cell(row.get(c)) for c in columns] for row in rows]
            self._try(lambda run: run.log({name: self._wandb.Table(columns=columns, data=data)}))

    def figure(self, name: str, png: Path) -> None:
        """Log a picture."""
        self._try(lambda run: run.log({name: self._wandb.Image(str(png))}))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Values of the whole run."""
        self._try(lambda run: run.summary.update(dict(values)))

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Log files as an artifact, by reference to where they are (no second copy)."""

        def send(run: Any) -> None:
            allowed = re.sub(r"[^A-Za-z0-9._-]", "-", name)  # W&B refuses other characters, such as = of a run's name
            artifact = self._wandb.Artifact(allowed, type=kind)
            for path in paths:
                artifact.add_file(str(path), name=path.name, policy="immutable")
            run.log_artifact(artifact)

        self._try(send)

    def finish(self) -> None:
        """Close the run."""
        self._try(lambda run: run.finish())
        self._run = None

    def _try(self, action: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # see above
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._run = None
        text = str(error).splitlines()[0] if str(error) else ""
        log.warning("W&B is off from now on (%s: %s); CSV and records are complete", type(error).__name__, text)


class Trackers(Tracker):
    """Several trackers as one: every call goes to each of them, in order."""

    def __init__(self, trackers: Sequence[Tracker]):
        self._all = list(trackers)

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.metrics(values)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.table(name, rows)

    def figure(self, name: str, png: Path) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.figure(name, png)

    def summary(self, values: Mapping[str, Any]) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.summary(values)

    def artifact(self, name: str, kind: str, paths: Sequence[Path]) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.artifact(name, kind, paths)

    def finish(self) -> None:
        """Forward to every tracker."""
        for tracker in self._all:
            tracker.finish()


MODES: tuple[Literal["off", "offline", "online"], ...] = ("off", "offline", "online")
"""Of W&B, each with what the one before has."""


def _home() -> str:
    """The folder of this user by the system's list of users; for an unlisted one that of temporary files."""
    home = os.path.expanduser("~")
    return home if os.path.isabs(home) else tempfile.gettempdir()


def wandb_mode(config: TrackConfig) -> Literal["off", "offline", "online"]:
    """off, offline or online; `auto` is online only when a key is configured, so that nothing ever prompts. What
    WANDB_MODE and WANDB_DISABLED allow is never exceeded."""
    wanted = ("online" if _has_key() else "offline") if config.wandb == "auto" else config.wandb
    return MODES[min(MODES.index(wanted), MODES.index(_allowed_mode()))]


def _allowed_mode() -> Literal["off", "offline", "online"]:
    """The most that the environment allows; a mode that W&B does not have allows nothing."""
    if os.environ.get("WANDB_DISABLED", "").strip().lower() not in ("", "0", "false", "no"):
        return "off"
    mode = os.environ.get("WANDB_MODE", "").strip().lower()
    if mode in ("", "online", "run", "shared"):
        return "online"
    return "offline" if mode in ("offline", "dryrun") else "off"


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _run_id(path: Path, job_type: str) -> str:
    """The id of a folder's W&B run for training or probing, made and kept at the first call."""
    ids = read_json(path) if path.is_file() else {}
    if job_type not in ids:
        ids[job_type] = secrets.token_hex(4)
        write_json(path, ids)
    return ids[job_type]


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
