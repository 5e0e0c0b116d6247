"""What happens to one of two processes that share contexts ends both, in one line and with its exit code, whatever the
main thread of the first waits for; the same command then writes the records of one process."""

import pytest

from lcprobe.cli.commands import evaluate_main
from lcprobe.studies.launchers.work.orders import ProbeOrder, write_order
from tests.studies.evaluation.dividing.forked import ended
from tests.studies.evaluation.dividing.test_sharing import check_equal, numbers, start_over, study
from validation.faults.dividing import NUMBER, second_is_gone

__all__ = ["study"]
GONE = (
    "error: another process of probe.context_parallel is gone: process 1 of 2 killed by SIGKILL (mostly for memory);"
)
ADVICE = "error: process 1 of 2: out of memory in a process that shares contexts with others; allowed: a smaller"
FAULTS = {
    "die_unseen": (75, GONE),
    "die": (75, GONE),
    "stop": (75, "rank 1 gave no sign of life"),
    "stop_and_tell": (75, "stopped by SIGTERM: finished work is kept; the same command resumes"),
    "no_memory": (2, ADVICE),
    "stop_and_interrupt": (130, "interrupted: finished work is kept; the same command resumes"),
    "kill_first": (-9, ""),
}


def check_faults(study, folder, kinds) -> None:
    many = [str(study), "probe.context_parallel=2"]
    for kind in kinds:
        code, expected = FAULTS[kind]
        settings = ["probe.hang_minutes=0.05"] if kind == "stop" else []
        found, text = ended("evaluate_main", [*many, *settings], folder, kind, 2)
        assert second_is_gone(folder), (kind, text)
        assert found == code, (kind, text)
        said = [line for line in text.splitlines() if line.startswith(("error: ", "stopped by", "interrupted"))]
        assert [expected in line for line in said] == ([True] if expected else []), (kind, text)
        (folder / NUMBER).unlink()
    code, text = ended("evaluate_main", many, folder)
    assert code == 0, text


def test_whatever_happens_to_one_ends_both_and_the_same_command_goes_on(study, tmp_path):
    check_faults(study, tmp_path, ["die_unseen", "stop_and_tell", "no_memory"])


@pytest.mark.slow
def test_processes_that_hang_and_other_signals(study, tmp_path):
    assert evaluate_main([str(study)]) == 0
    alone = start_over(study)
    check_faults(study, tmp_path, ["stop", "stop_and_interrupt", "die", "kill_first"])
    check_equal(alone, numbers(study))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code", "expected"), [
    ("no_memory", 2, "process 1 of 2: out of memory"),
    ("stop", 75, "rank 1 gave no sign of life"),
    ("stop_and_tell", 75, "stopped by SIGTERM: finished work is kept; the same command resumes"),
])  # fmt: skip
def test_a_worker_of_a_launcher_ends_alike(kind, code, expected, study, tmp_path):
    minutes = 0.05 if kind == "stop" else 10.0
    settings = (("probe.context_parallel", 2), ("probe.hang_minutes", minutes))
    write_order(study, ProbeOrder(folders=(str(study),), settings=settings))
    found, text = ended("main", ["work", str(study), "--units", "probe"], tmp_path, kind, 2)
    assert second_is_gone(tmp_path)
    assert found == code, text
    assert expected in text
