"""What a launcher ends with: the code of the worst that happened, of those that README lists, and a line of its own."""

import pytest

from lcprobe.choices import Choice, choose
from lcprobe.errors import ConfigError, ending
from lcprobe.studies.launchers import launch
from lcprobe.studies.launchers.config import LAUNCHERS
from lcprobe.studies.launchers.work.failures import Failure, as_command, worst_of

STARTED = {
    "torchrun": {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "here", "MASTER_PORT": "29500"},
    "srun": {
        "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_STEP_NODELIST": "a",
        "SLURM_JOB_ID": "7", "SLURM_STEP_TASKS_PER_NODE": "2",
    },
}  # fmt: skip


def failure(code: int | None, why: str = "why") -> Failure:
    return Failure("a", "now", "here", 1, code, why)


@pytest.mark.parametrize(
    ("codes", "worst", "command"),
    [
        ([75, 2, 4], 2, 2),
        ([74, 4], 4, 4),
        ([None, 5], 5, 5),
        ([75, 74], 74, 74),
        ([-9], -9, 75),
        ([None], None, 75),
        ([-9, 1], 1, 1),
    ],
)
def test_the_worst_failure_decides_the_exit_code(tmp_path, monkeypatch, codes, worst, command):
    monkeypatch.setattr(launch, "alert_of_given_up", lambda study, lost: None)
    lost = {f"unit{place}": failure(code) for place, code in enumerate(codes)}
    assert worst_of(lost.values()).exit == worst
    with pytest.raises(launch.WorkLeft, match=f"^unit{codes.index(worst)}: .*why") as error:
        launch._raise_for(lost, tmp_path)
    assert error.value.exit_code == command == as_command(worst)


@pytest.mark.parametrize("code", [*range(-70, 0), None, 0, 3, 137])
def test_any_end_of_a_worker_has_a_code_that_is_listed(code):
    assert as_command(code) in (1, 75)


def test_a_signal_is_named():
    assert str(failure(-9, "")).startswith("killed by SIGKILL (mostly for memory), process 1 on here")
    assert str(failure(-15, "last")).startswith("killed by SIGTERM; it had printed: last, process")
    assert str(failure(None, "")).startswith("no reason is known, process")
    assert [ending(code) for code in (1, -6, -250)] == ["ended with 1", "killed by SIGABRT", "killed by signal 250"]


@pytest.mark.parametrize("starter", ["torchrun", "srun"])
def test_a_launcher_in_each_of_several_processes_is_refused(monkeypatch, starter):
    for name, value in STARTED[starter].items():
        monkeypatch.setenv(name, value)
    choice: Choice = choose(LAUNCHERS, "local", "launcher")
    with pytest.raises(ConfigError, match=f"a launcher in each of 2 processes of {starter}; allowed: one process"):
        launch._launcher(choice)
