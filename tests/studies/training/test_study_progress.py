"""How long a study still takes: planned FLOPs at the pace of what is done, and what was done before counts."""

import pytest

from lcprobe.config import load
from lcprobe.locks import folder_lock
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.training.study_progress import Piece, StudyProgress, piece_of, seconds_left, share_done
from lcprobe.studies.training.train_run import train_run
from lcprobe.training.progress import StepReport
from tests.tiny import write_config


class Shown:
    """A display that remembers."""

    def __init__(self):
        self.states: list[tuple[str, str, float]] = []

    def show(self, now: str, rest: str, share: float) -> None:
        self.states.append((now, rest, share))


def test_time_left_is_planned_flops_at_the_pace_of_the_same_model():
    done = Piece("mamba2", flops=10.0, share=1.0, seconds=100.0)  # 10 s a FLOP
    assert seconds_left([done]) == 0
    assert seconds_left([done, Piece("mamba2", 10.0)]) == pytest.approx(100)
    assert seconds_left([done, Piece("mamba2", 20.0)]) == pytest.approx(200)
    assert seconds_left([done, Piece("mamba2", 20.0, share=0.75, seconds=150.0)]) == pytest.approx(50)


def test_a_model_of_which_nothing_is_done_has_the_pace_of_all():
    fast, slow = Piece("fast", 10.0, 1.0, 10.0), Piece("slow", 10.0, 1.0, 30.0)
    assert seconds_left([fast, slow, Piece("new", 5.0)]) == pytest.approx(5 * 40 / 20)
    assert seconds_left([fast, slow, Piece("slow", 5.0)]) == pytest.approx(15)
    assert seconds_left([Piece("new", 5.0)]) is None


def test_the_share_is_of_planned_flops_not_of_runs():
    assert share_done([Piece("a", 30.0, 1.0, 1.0), Piece("b", 10.0, 0.0)]) == pytest.approx(0.75)
    assert share_done([]) == 0


def test_a_run_in_hand_has_its_own_pace_and_the_study_that_and_the_rest():
    shown = Shown()
    runs = {"s0-a": Piece("a", 10.0), "s1-a": Piece("a", 10.0), "s0-b": Piece("b", 40.0)}
    progress = StudyProgress(shown, {}, runs)  # type: ignore[arg-type]
    progress.run("s0-a")(StepReport(step=50, steps=100, first=0, seconds=60.0, loss=3.2109, tokens_per_second=27_123))
    now, rest, share = shown.states[-1]
    assert now == "run 1 of 3 s0-a: step 50/100, 27.1K tokens/s, loss 3.21"
    # 60 s of its own; 120 s for the next of its model; 4 times as many FLOPs as a whole run of 120 s
    assert rest == "this run 1:00 left, study 11:00 left"
    assert share == pytest.approx(5 / 60)


def test_resumed_steps_are_no_steps_of_this_process():
    report = StepReport(step=90, steps=100, first=80, seconds=20.0)
    assert report.seconds_left == pytest.approx(20)
    assert StepReport(step=80, steps=100, first=80, seconds=3.0).seconds_left is None


def test_one_run_is_no_study_and_trials_come_before_runs():
    shown = Shown()
    report = StepReport(step=1, steps=2, first=0, seconds=30.0)
    StudyProgress(shown, {}, {"run": Piece("a", 1.0)}).run("run")(report)  # type: ignore[arg-type]
    assert shown.states[-1][:2] == ("run: step 1/2", "0:30 left")
    trials = {"a-lr0.1": Piece("a", 1.0), "a-lr0.2": Piece("a", 1.0)}
    StudyProgress(shown, trials, {"run": Piece("a", 10.0)}).trial("a-lr0.2")(report)  # type: ignore[arg-type]
    assert shown.states[-1][0] == "trial 2 of 2 a-lr0.2: step 1/2"
    assert shown.states[-1][1] == "this run 0:30 left, study 11:30 left"


def test_done_runs_count_at_a_resume(tmp_path, data_settings):
    """Of three runs the first is trained: the second is number 2, a third of the study is done, and the first's time is
    the pace."""
    grid = {"seed": [0, 1, 2]}
    train = {"context_length": 64, "tokens": 64 * 4 * 3, "batch_tokens": 256, "threads": 1}
    model = {"layout": "mamba2"}
    path = write_config(
        tmp_path, data_settings, grid=grid, train=train, model=model, match={"budget": None}, probe={"while_training": None}
    )  # fmt: skip
    plan = make_plan(load([str(path)], []))
    train_run(plan.runs[0])
    pieces = {run.name: piece_of(run, run.folder) for run in plan.runs}
    assert [piece.share for piece in pieces.values()] == [1, 0, 0]
    seconds = pieces[plan.runs[0].name].seconds
    assert seconds > 0
    assert seconds_left(pieces.values()) == pytest.approx(2 * seconds)
    shown = Shown()
    progress = StudyProgress(shown, {}, pieces)  # type: ignore[arg-type]
    with folder_lock(plan.runs[2].folder):  # another process trains the third
        train_run(plan.runs[1], observer=progress.run(plan.runs[1].name))
    assert [now.split(":")[0] for now, _, _ in shown.states] == [f"run 2 of 3 {plan.runs[1].name}"] * 4
    assert [share for _, _, share in shown.states] == pytest.approx([(1 + i / 3) / 3 for i in range(4)])
