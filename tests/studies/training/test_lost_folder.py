"""A process whose folder another one has taken over, while it was away, writes nothing more into it."""

import json
from dataclasses import asdict

import pytest

from lcprobe.config import load
from lcprobe.locks import OWNER, ClaimLost, Process
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.status import write_status
from lcprobe.studies.training.train_run import train_run
from tests.tiny import write_config


@pytest.mark.parametrize(("log_every", "fails"), [(1, False), (1000, False), (1000, True)])
def test_nothing_is_written_into_a_folder_that_was_taken_over(tmp_path, data_settings, log_every, fails):
    """The first write after it is a row, a checkpoint, or the status after an error."""
    config = write_config(
        tmp_path, data_settings, train={"log_every": log_every, "tokens": 256 * 8}, probe={"while_training": None}
    )
    run = make_plan(load([str(config)], [])).runs[0]

    def files():
        found = {p.relative_to(run.folder): p.read_bytes() for p in run.folder.rglob("*") if p.is_file()}
        return {
            path: data for path, data in found.items() if "checkpoints" not in path.parts or path.suffix == ".json"
        }

    before = []

    def taken_over(step):
        if step.step == 5:
            (run.folder / OWNER).write_text(json.dumps(asdict(Process("node-3", 71))))
            write_status(run.folder, {"status": "done", "step": 8})
            before.append(files())
            if fails:
                raise ValueError("whatever")

    with pytest.raises(ClaimLost, match="taken over by another process.*writes nothing more") as raised:
        train_run(run, observer=taken_over)
    assert raised.value.exit_code == 6
    assert files() == before[0]
