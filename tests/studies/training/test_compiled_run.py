"""A whole run with train.compile: a curriculum of lengths, probes and recomputation leave its blocks compiled."""

from functools import partial

import pytest
import torch
from torch._dynamo.utils import counters

from lcprobe.cli.commands import train_main
from lcprobe.files import read_json
from lcprobe.training import fit
from lcprobe.training.compiling import compile_blocks
from lcprobe.training.module import Training
from tests.tiny import write_config

SCHEDULE = [{"until": share / 4, "length": f"{length}t"} for share, length in ((1, 16), (2, 32))]
TRAIN = {
    "context_length": 64, "tokens": 64 * 4 * 12, "batch_tokens": 256, "log_every": 1, "threads": 1, "compile": True,
    "length_schedule": [*SCHEDULE, {"length": 1}], "probe_every": 256 * 4,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("positions", [None, {"type": "randomized", "max_length": 256}])
def test_a_curriculum_with_probes_compiles_for_two_lengths_and_for_no_more(
    recompute, positions, tmp_path, data_settings, monkeypatch
):
    graphs, after = [], []

    def count(module, inputs):
        graphs.append(module)
        return module.forward

    def step(self, *args, **kwargs):
        taken(self, *args, **kwargs)
        after.append(len(graphs))

    taken = Training.optimizer_step
    monkeypatch.setattr(Training, "optimizer_step", step)
    monkeypatch.setattr(fit, "compile_blocks", partial(compile_blocks, backend=count))
    grid = {"arch": {"hybrid": {"model": {"layout": "mamba2, attention", "positions": positions}}}}
    config = write_config(
        tmp_path,
        {**data_settings, "mixture": [{"lm": 1.0}]},
        train={**TRAIN, "recompute": recompute},
        grid=grid,
        match={"budget": None},
    )
    torch._dynamo.reset()
    counters.clear()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        assert train_main([str(config)]) == 0
    status = read_json(tmp_path / "runs" / "tiny" / "hybrid" / "status.json")
    assert (status["status"], status["step"], status.get("probes_failed")) == ("done", 12, None)
    assert 2 <= after[0] <= 4
    assert after[5] <= 8
    assert after[6:] == [after[5]] * 6
    assert not counters["graph_break"]
    torch._dynamo.reset()
