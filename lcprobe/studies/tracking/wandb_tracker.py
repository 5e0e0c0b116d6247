"""One W&B run as a tracker, through Lightning's WandbLogger. Every row has its own x-axis (`tokens`, `eval/length`),
never W&B's step.

Online a run that goes on is resumed. Offline W&B cannot resume: each time the run gets a new folder, with all its
rows, so that the newest one is the whole run, and `lcprobe sync` sends that one alone.
"""

import contextlib
import io
import logging
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lcprobe.config import TrackConfig
from lcprobe.errors import LcprobeError, StoppedEarly, Terminated
from lcprobe.files import read_json, write_json
from lcprobe.studies.tracking.eval_values import LENGTH, unsaid
from lcprobe.studies.tracking.identity import run_id
from lcprobe.studies.tracking.modes import Mode, stay_offline, wandb_mode
from lcprobe.tracking import Artifact, Tracker

log = logging.getLogger(__name__)
JobType = Literal["train", "sweep", "eval", "probe", "alert"]
FACTS = "wandb_run.json"
"""In a run's folder: what opens its W&B run again."""
AXES = (("train/*", "tokens"), ("probe/*", "tokens"), ("eval/*", LENGTH))
"""Names of metrics, and the x-axis of their charts."""
MAX_NAME = 128
"""Characters of an artifact's name that W&B takes."""
INTERRUPTED = 255
"""Exit code by which W&B knows a run that Ctrl-C has ended."""


@dataclass(frozen=True)
class WandbRun:
    """What a W&B run is. study: its study's folder; run: its place in it, see `identity`. agent_id: the run that an
    agent of a W&B sweep has made for it; empty: none has."""

    study: str
    run: str
    name: str
    group: str
    job_type: JobType
    tags: list[str] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    agent_id: str = ""

    def save(self, folder: Path) -> None:
        """Write it into a run's folder."""
        write_json(folder / FACTS, asdict(self))

    @property
    def id(self) -> str:
        """Its id in W&B."""
        return self.agent_id or run_id(Path(self.study), self.run, self.job_type)


def saved_run(folder: Path) -> WandbRun | None:
    """The W&B run of a run's folder, wherever the study is now; None where it was not tracked."""
    try:
        saved = WandbRun(**read_json(folder / FACTS))
    except (OSError, ValueError, TypeError):
        return None
    depth = len(Path(saved.run).parts)
    return WandbRun(**{**asdict(saved), "study": str(folder.resolve().parents[depth - 1])})


def agent_run_id() -> str:
    """The id of the run that an agent of a W&B sweep has made for this process; empty: no agent runs it."""
    return os.environ.get("WANDB_RUN_ID", "") if os.environ.get("WANDB_SWEEP_ID") else ""


class WandbTracker(Tracker):
    """One W&B run. After any failure it does nothing, and the program goes on.

    folder: W&B's own files go into its folder wandb. goes_on: online, the run is resumed; else what it had is
    replaced, as its folder is. rows: those of metrics.csv and of its evaluations when it goes on; what W&B does not
    have of them is logged first: online the last ones, offline all.
    """

    def __init__(
        self,
        config: TrackConfig,
        run: WandbRun,
        folder: Path,
        *,
        goes_on: bool = False,
        rows: Sequence[Mapping[str, float | int]] = (),
    ):
        self._run: Any = None
        self._config = config
        self._uses: list[str] = []
        self._last = self._furthest = -1.0
        """Tokens of the last row of training, and of the furthest one."""
        self._logged = -1.0
        """Up to how many tokens W&B has the rows already."""
        self._before: dict[str, Any] = {}
        """Its summary in W&B, when it is resumed."""
        try:
            mode = wandb_mode(config, Path(run.study))
            if mode == "off":
                return
            self._open(config, run, folder, goes_on, mode)
            if self._run.resumed:
                self._before = dict(self._run.summary)
                self._logged = float(self._before.get("tokens", -1))
            for row in rows:
                self.metrics(row)
        except Exception as error:  # wandb raises its own errors, OSError and others
            self._fail(error)

    def metrics(self, values: Mapping[str, float | int]) -> None:
        """Log a row, without W&B's step, unless W&B has it from before: of training by its tokens, of an evaluation
        where its summary has the same values."""
        tokens = values.get("tokens")
        if tokens is not None:
            if tokens < self._last:  # gone back to a checkpoint: rows cannot be taken back
                self._logged = max(self._logged, self._furthest)
            self._last, self._furthest = tokens, max(self._furthest, tokens)
        fresh = unsaid(values, self._before) if tokens is None or tokens > self._logged else {}
        if fresh:
            self._try(lambda run: run.log(dict(fresh)))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Log rows as a W&B table."""
        if rows:
            columns: list[Any] = list(rows[0])
            data: list[Any] = [[_cell(row.get(c)) for c in columns] for row in rows]
            self._try(lambda run: run.log({name: self._wandb.Table(columns=columns, data=data)}))

    def figure(self, name: str, png: Path) -> None:
        """Log a picture."""
        self._try(lambda run: run.log({name: self._wandb.Image(str(png))}))

    def page(self, name: str, html: Path) -> None:
        """Log a page, as it is."""
        self._try(lambda run: run.log({name: self._wandb.Html(html.read_text(encoding="utf-8"), inject=False)}))

    def summary(self, values: Mapping[str, Any]) -> None:
        """Values of the whole run."""
        self._try(lambda run: run.summary.update(dict(values)))

    def artifact(self, artifact: Artifact) -> None:
        """Log an artifact, as `track.artifacts` says: by reference, or its files, without a second copy here."""
        if self._config.artifacts != "none":
            self._try(lambda run: run.log_artifact(self._made(artifact)))

    def uses(self, artifact: Artifact) -> None:
        """Say what the run is made from, in its config, too. W&B's `use_artifact` raises offline, and online waits
        for the server: what it does with a new artifact before that is recorded in both cases."""

        def use(run: Any) -> None:
            self._uses.append(f"{_allowed(artifact.name)}:{artifact.digest[:16]}")
            run.config.update({"uses": self._uses}, allow_val_change=True)
            if self._config.artifacts != "none":
                run._log_artifact(self._made(artifact), is_user_created=True, use_after_commit=True)

        self._try(use)

    def alert(self, title: str, text: str) -> None:
        """Send an alert; offline it is kept with the run's rows."""
        if self._config.alerts:
            self._try(lambda run: run.alert(title, text))

    def _made(self, artifact: Artifact) -> Any:
        """An artifact of W&B's, whose digest is that of its files, wherever they are."""
        facts = {**artifact.facts, "digest": artifact.digest}
        made = self._wandb.Artifact(_allowed(artifact.name), type=artifact.kind, metadata=facts)
        for inside, path in artifact.files.items():
            if self._config.artifacts == "files":
                made.add_file(str(path), name=inside, policy="immutable")
            else:
                made.add_reference(path.resolve().as_uri(), name=inside)
        if not artifact.files:
            # W&B warns that it cannot compute a digest of what is one
            with contextlib.redirect_stderr(io.StringIO()):
                made.add_reference(f"sha256:{artifact.digest}", name=artifact.kind)
        return made

    def finish(self, error: BaseException | None = None) -> None:
        """Close the run: finished, or as what it was ended by; one that was preempted can go on."""

        def close(run: Any) -> None:
            if isinstance(error, StoppedEarly | Terminated):
                run.mark_preempting()
            run.finish(exit_code=exit_code_of(error))

        self._try(close)
        self._run = None

    def _open(self, config: TrackConfig, run: WandbRun, folder: Path, goes_on: bool, mode: Mode) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")  # its advice would mix with this program's output
        os.environ.setdefault("HOME", _home())  # without one its log goes to stderr
        import wandb
        from lightning.pytorch.loggers import WandbLogger
        from lightning_utilities.core.rank_zero import rank_zero_only

        rank_zero_only.rank = 0  # this process tracks, whatever an allocation's SLURM_PROCID says
        self._wandb = wandb
        folder.mkdir(parents=True, exist_ok=True)

        def opened(mode: Mode) -> Any:
            return wandb.init(
                name=None if run.agent_id else run.name,
                project=None if run.agent_id else config.project,
                dir=str(folder),
                mode="online" if mode == "online" else "offline",
                id=run.id,
                resume="allow" if goes_on and mode == "online" else None,
                group=run.group,
                job_type=run.job_type,
                tags=[*run.tags, *config.tags],
                config=run.config,
                reinit="create_new",
                settings=wandb.Settings(
                    silent=True, console="off", init_timeout=30, x_disable_stats=not config.system_metrics
                ),
            )

        try:
            experiment = opened(mode)
        except Exception as error:  # see above
            if mode != "online":
                raise
            stay_offline(_first_line(error), Path(run.study))
            experiment = opened("offline")
        self._run = WandbLogger(experiment=experiment).experiment
        for name, axis in AXES:  # of a curve over length, the last point is no value of the run
            kept = "none" if axis == LENGTH else None
            self._run.define_metric(axis, summary=kept)
            self._run.define_metric(name, step_metric=axis, summary=kept)

    def _try(self, action: Callable[[Any], object]) -> None:
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:  # see above
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._run = None
        line = f"{type(error).__name__}: {_first_line(error)}"
        log.warning("W&B is off from now on (%s); CSV and records are complete", line)


def _allowed(name: str) -> str:
    """The name of an artifact without what W&B refuses, such as = of a run's name."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:MAX_NAME]


def exit_code_of(error: BaseException | None) -> int:
    """The exit code that W&B is told: 0 is finished, everything else is not."""
    if isinstance(error, Terminated):
        return StoppedEarly.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return 0 if error is None else error.exit_code if isinstance(error, LcprobeError) else 1


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _home() -> str:
    """The folder of this user by the system's list of users; for an unlisted one that of temporary files."""
    home = os.path.expanduser("~")
    return home if os.path.isabs(home) else tempfile.gettempdir()


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
