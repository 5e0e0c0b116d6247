"""A run of trackio, in its database on this machine (pip install 'lcprobe[trackio]'): `trackio show`. What its
variables say, such as TRACKIO_DIR, holds."""

import contextlib
import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from lcprobe.config import TrackConfig
from lcprobe.studies.tracking.also.guarded import Guarded
from lcprobe.studies.tracking.eval_values import LENGTH
from lcprobe.studies.tracking.metrics_csv import Row, drop_measured_again
from lcprobe.studies.tracking.wandb_tracker import WandbRun
from lcprobe.tracking import Artifact


class TrackioTracker(Guarded):
    """The same rows, tables and figures as in W&B, over tokens or length. Rows that trackio had when its process was
    killed are not known, so that each time a run goes on it is replaced, with all its rows."""

    title = "trackio"

    def __init__(self, config: TrackConfig, run: WandbRun, rows: Sequence[Row] = ()):
        self._open_again = lambda: self._open(config, run)
        self._run: Any = None
        self._rows: list[Row] = []
        self._try(self._open_again)
        for row in rows:
            self.metrics(row)

    def metrics(self, values: Row) -> None:
        """A row at its tokens or length."""
        back = drop_measured_again(self._rows, values)
        self._rows.append(dict(values))
        if back:
            self._quietly(self._close)
            self._try(self._open_again)
        for row in self._rows if back else [values]:
            at = row.get("tokens", row.get(LENGTH))
            shown = {name: value for name, value in row.items() if name != "step"}  # its own column
            self._quietly(lambda at=at, shown=shown: self._run.log(shown, step=None if at is None else int(at)))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """A table."""

        def add() -> None:
            import pandas

            trackio = import_module("trackio")
            frame = pandas.DataFrame([{key: _cell(value) for key, value in row.items()} for row in rows])
            self._run.log({name: trackio.Table(dataframe=frame)})

        if rows:
            self._quietly(add)

    def figure(self, name: str, png: Path) -> None:
        """A picture."""

        def add() -> None:
            trackio = import_module("trackio")
            self._run.log({name: trackio.Image(str(png))})

        self._quietly(add)

    def page(self, name: str, html: Path) -> None:
        """Where it is."""
        self._quietly(lambda: self._run.log({name: str(html)}))

    def summary(self, values: Mapping[str, Any]) -> None:
        """The last row of the run: trackio has no summary."""
        if values:
            self._quietly(lambda: self._run.log({name: _cell(value) for name, value in values.items()}))

    def artifact(self, artifact: Artifact) -> None:
        """Nothing to do: trackio would copy the files."""

    def uses(self, artifact: Artifact) -> None:
        """Nothing to do: status.json has the digests."""

    def alert(self, title: str, text: str) -> None:
        """An alert of trackio's, which its webhook gets where one is set."""
        self._quietly(lambda: self._run.alert(title, text))

    def finish(self, error: BaseException | None = None) -> None:
        """Write what is left."""
        self._quietly(self._close)
        self.off = True

    def _open(self, config: TrackConfig, run: WandbRun) -> None:
        trackio = import_module("trackio")
        name = name_of(run)
        measured = None if config.system_metrics else False
        settings = {"group": run.group, "config": {**run.config, "job_type": run.job_type}, "embed": False}
        with contextlib.redirect_stdout(io.StringIO()):
            self._run = trackio.init(config.project, name, auto_log_cpu=measured, auto_log_gpu=measured, **settings)
            with contextlib.suppress(ValueError):  # before its first row, there is no project
                for one in trackio.Api().runs(config.project):
                    if one.name == name and one.id != self._run.id:
                        one.delete()

    def _close(self) -> None:
        trackio = import_module("trackio")
        if (
            import_module("trackio.context_vars").current_run.get() is self._run
        ):  # else another one was opened, which has ended it
            trackio.finish()

    def _quietly(self, action: Any) -> None:
        """Without the lines that trackio prints."""
        with contextlib.redirect_stdout(io.StringIO()):
            self._try(action)


def name_of(run: WandbRun) -> str:
    """The run's name, which no run of another study of that name has."""
    return f"{run.name.replace('/', '-')}-{run.job_type}-{run.id[:5]}"


def _cell(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | type(None)) else str(value)
