"""`probe.context_parallel`: two processes share every context, and records are those of one."""

import socket
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.errors import PeerError
from lcprobe.models.config import KernelsConfig
from lcprobe.studies.evaluation.dividing import processes as dividing
from lcprobe.training.processes import Processes
from tests.tiny import start, write_config

LAYERS = {"layout": "attention+mlp, mamba2, rwkv7+rwkv7", "d_ff": 24, "mixers": {"rwkv7": {"head_dim": 8}}}
GRIDS = [{"tasks": ["single"], "lengths": [1, 3], "depths": 2, "n": 2}]
SUMS = ("log_likelihood", "value")
"""Columns of numbers that are added in another order."""


@pytest.fixture
def study(tmp_path, data_settings) -> Path:
    """A hybrid after one step of training."""
    tokens = 64 * 4
    probe = {"grids": GRIDS, "while_training": None, "batch_tokens": 400, "chunk": 48}
    probe["context"] = {"lengths": [1, 2], "n": 2, "kept": [8]}
    train = {"tokens": tokens, "checkpoint_every": tokens, "probe_every": 0}
    config = write_config(
        tmp_path,
        data_settings,
        grid={"arch": {"hybrid": {"model": LAYERS}}},
        match={"budget": None},
        train=train,
        probe=probe,
    )
    assert train_main([str(config)]) == 0
    return tmp_path / "runs" / "tiny"


def numbers(study: Path) -> dict[tuple[str, str], list]:
    """Of all records, by file and column."""
    paths = [*(study / "records").glob("*.parquet"), *(study / "context").glob("*.parquet")]
    return {
        (p.name, c): pq.read_table(p).to_pandas()[c].tolist() for p in paths for c in pq.read_table(p).column_names
    }


def check_equal(one: dict, other: dict) -> None:
    assert len(one) > 100
    assert one.keys() == other.keys()
    for (name, column), values in one.items():
        if column in SUMS:
            pairs = [(a, b) for a, b in zip(values, other[name, column], strict=True) if a is not None]
            np.testing.assert_allclose(
                *np.array(pairs, dtype=float).T, rtol=1e-5, atol=2e-6, err_msg=f"{name} {column}"
            )
        else:
            assert str(values) == str(other[name, column]), (name, column)


def start_over(study: Path) -> dict:
    """The numbers of a study, whose records are then deleted."""
    found = numbers(study)
    for path in [*(study / "records").iterdir(), *(study / "context").iterdir(), *(study / "models").iterdir()]:
        path.unlink()
    return found


def test_two_processes_of_torchrun_write_the_records_of_one(study, tmp_path):
    assert evaluate_main([str(study)]) == 0
    alone, logs = start_over(study), [tmp_path / f"log{rank}" for rank in range(2)]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    world = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    own = {name: str(value) for name, value in world.items()} | {
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    both = [
        start(
            "evaluate_main", [str(study), "probe.context_parallel=2"], log,
            own | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank, log in enumerate(logs)
    ]  # fmt: skip
    for process, log in zip(both, logs, strict=True):
        process.join(200)
        assert process.exitcode == 0, log.read_text()[-3000:]
    check_equal(alone, numbers(study))
    assert "report: " in logs[0].read_text()
    assert logs[1].read_text() == ""
    notes = [path.read_text() for path in (study / "models").iterdir()]
    assert ["contexts divided over 2 processes" in note for note in notes] == [True]


def test_a_process_that_ends_before_it_joins_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(dividing, "FOLLOWER", "this")  # a module that ends at once
    own = dividing.Sharing(Processes(), 2, KernelsConfig())
    with pytest.raises(PeerError, match="process 1 of 2 ended with 0"):
        own.ready()
