"""Studies and runs as objects: what `train.py` and `evaluate.py` wrote, as tables and figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lcprobe.analysis.display_names import Inputs, named
from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.report.figures import all_figures
from lcprobe.analysis.report.summary import summary
from lcprobe.analysis.report.tables import all_tables
from lcprobe.api.models import Model, load_target
from lcprobe.config import Config
from lcprobe.errors import ConfigError
from lcprobe.studies.evaluation.records.query import as_query, query_records
from lcprobe.studies.evaluation.report_inputs import REPORT_INPUTS, ReportInputs, load_inputs
from lcprobe.studies.evaluation.targets import ProbeTarget, find_targets
from lcprobe.studies.status import read_status
from lcprobe.studies.tracking import read_metrics

if TYPE_CHECKING:
    import altair as alt
    import pandas as pd


@dataclass(frozen=True)
class TrainedRun:
    """One trained run. name: within its study; folder: where it is; config: everything resolved."""

    name: str
    folder: Path
    target: ProbeTarget

    @property
    def config(self) -> Config:
        """The run's resolved configuration."""
        return self.target.config

    @property
    def status(self) -> dict[str, Any]:
        """status.json: parameters, tokens, digests, how training ended."""
        return read_status(self.folder)

    def metrics(self) -> "pd.DataFrame":
        """metrics.csv: one row per logged step, `tokens` first; columns as in the CSV, NaN where a row has no
        value."""
        import pandas as pd

        return pd.DataFrame(read_metrics(self.folder / "metrics.csv"))

    def model(
        self, extend: str | Mapping[str, Any] | None = None, factor: float | None = None, device: str = "auto"
    ) -> Model:
        """The newest checkpoint, loaded; arguments as in `load_checkpoint`."""
        return load_target(self.target, extend, factor, device)


@dataclass(frozen=True)
class Study:
    """A study's folder: its runs by name, and what `evaluate.py` reported about them; a comparison of folders has no
    runs of its own."""

    folder: Path
    runs: Mapping[str, TrainedRun]

    @cached_property
    def _inputs(self) -> ReportInputs:
        return load_inputs(self.folder)

    @cached_property
    def results(self) -> Results:
        """Everything that the report computes, before it is worded: cells, contrasts, extrapolation, reach, gates,
        text curves.

        Raises DataError where the study has no report yet.
        """
        inputs = self._inputs
        return analyse(*named(Inputs(inputs.study, self.records(), self.context()), inputs.names))

    def records(
        self,
        model: str | Sequence[str] | None = None,
        task: str | Sequence[str] | None = None,
        length: int | Sequence[int] | None = None,
        everything: bool = False,
    ) -> pa.Table:
        """One row per query, those that the report is about; `.to_pandas()` makes a data frame.

        model, task, length: of one, several or (None) all of them; files of others are not opened. everything: all
        finished records, also those that the report is not about; where there is no report yet, these are all.
        Raises DataError without records, ConfigError for a name of which there is none.
        """
        return query_records(self.folder, replace(as_query(model, task, length), everything=everything))

    def context(self) -> pa.Table | None:
        """One row per measurement on plain text; None where none was made. Raises DataError as `results`."""
        return self._inputs.context(self.folder)

    def summary(self) -> list[str]:
        """The sentences at the top of the report."""
        return [sentence.text for sentence in summary(self.results)]

    def tables(self) -> "dict[str, pd.DataFrame]":
        """The report's tables by name, as in `tables/*.csv`."""
        import pandas as pd

        return {name: pd.DataFrame(rows) for name, rows in all_tables(self.results).items() if rows}

    def figures(self) -> "dict[str, alt.TopLevelMixin]":
        """The report's figures by name, as in `figures/*.svg`: altair charts that can be changed and saved."""
        return all_figures(self.results)


def load_study(folder: str | Path) -> Study:
    """Open a study's folder, such as `runs/quickstart`, or another that `evaluate.py` wrote a report to.

    Raises ConfigError for anything else, CheckpointError for a study without a trained run.
    """
    folder = Path(folder)
    trained, reported = (folder / "study.yaml").is_file(), (folder / REPORT_INPUTS).is_file()
    if not trained and not reported:
        allowed = f"a study's folder with study.yaml (from train.py), or one with {REPORT_INPUTS} (from evaluate.py)"
        raise ConfigError("folder", str(folder), allowed)
    runs = [_run(target) for target in find_targets([folder])] if trained else []
    return Study(folder, {run.name: run for run in runs})


def load_run(folder: str | Path) -> TrainedRun:
    """Open a run's folder, such as `runs/quickstart/s0-mamba2`. Raises ConfigError for anything else, CheckpointError
    without checkpoint."""
    folder = Path(folder)
    if not (folder / "checkpoints").is_dir():
        raise ConfigError("folder", str(folder), "a run's folder, with checkpoints/ in it (train.py makes one)")
    return _run(find_targets([folder])[0])


def _run(target: ProbeTarget) -> TrainedRun:
    assert target.run_folder is not None, "found in a study's or a run's folder"
    return TrainedRun(target.name, target.run_folder, target)
