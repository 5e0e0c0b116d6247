"""`evaluate.py` started several times on one study: each question once, one report, and a rerun loads no model."""

import pyarrow.parquet as pq
import pytest

from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.studies.evaluation.jobs import job
from tests.tiny import start, write_config


@pytest.mark.slow
def test_three_commands_share_the_work_of_a_study(tmp_path, data_settings, monkeypatch, capsys):
    config = write_config(
        tmp_path, data_settings, train={"tokens": 64 * 4 * 4, "context_length": 64, "batch_tokens": 256}
    )
    assert train_main([str(config)]) == 0
    study, logs = tmp_path / "runs" / "tiny", [tmp_path / f"log{i}" for i in range(3)]
    others = [start("evaluate_main", [str(study), "probe.batch_tokens=200"], log) for log in logs]
    for other, log in zip(others, logs, strict=True):
        other.join(300)
        assert other.exitcode == 0, log.read_text()[-2000:]
    written_by_others = ["(written by another process)" in log.read_text() for log in logs]
    assert sorted(written_by_others) == [False, True, True]
    assert {p.suffix for p in (study / "records").iterdir()} == {".parquet", ".jsonl"}, "no claim, no journal"
    shared = {p.name: pq.read_table(p) for p in (study / "records").glob("*.parquet")}
    csv = (study / "tables" / "cells.csv").read_text()

    monkeypatch.setattr(job, "load_shared", lambda *given: pytest.fail("nothing is left to do for any model"))
    assert evaluate_main([str(study), "probe.batch_tokens=200"]) == 0
    assert (study / "tables" / "cells.csv").read_text() == csv
    monkeypatch.undo()
    for path in [*(study / "records").iterdir(), *(study / "context").iterdir()]:
        path.unlink()
    assert evaluate_main([str(study), "probe.batch_tokens=200"]) == 0
    alone = {p.name: pq.read_table(p) for p in (study / "records").glob("*.parquet")}
    assert alone.keys() == shared.keys()
    assert all(alone[name].equals(table) for name, table in shared.items())
