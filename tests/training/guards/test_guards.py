"""Guard rails by themselves: what is a spike, how long something lasts, how much room there must be, what is left out."""

import json
import random
import time

import pytest
import torch
from torch import nn

from lcprobe.errors import MemoryLimitError, NumericsError, StoppedEarly, exit_code_of, is_out_of_memory
from lcprobe.files import publish_folder, read_json
from lcprobe.training.checkpoint import WHOLE, Progress, checkpoints, superfluous
from lcprobe.training.config import GuardsConfig
from lcprobe.training.guards import disk, heart, peers, rewinding
from lcprobe.training.guards.deadline import hours_since_start, is_over
from lcprobe.training.guards.finite import weights_are_finite
from lcprobe.training.guards.heart import PASSING, STEPPING, WAITING, Heart
from lcprobe.training.guards.judge import Judge, Rewind
from lcprobe.training.guards.rewinding import REWINDS, _go_back, read_left_out, with_rewinds
from lcprobe.training.guards.spikes import RecentLosses


def normal_losses(n, seed=0):
    """Falling, with the noise of batches."""
    dice = random.Random(seed)
    return [2 + 6 * 0.9995**step + dice.gauss(0, 0.15) for step in range(n)]


def test_spikes_are_found_and_noise_is_none():
    losses = normal_losses(10_000)
    recent = RecentLosses()
    assert sum(recent.sigmas(loss) > 10 for loss in losses) <= 1
    for at in (100, 500, 2000, 5000, 9000):
        recent = RecentLosses(losses[:at])
        assert recent.sigmas(10 * losses[at]) > 10


def test_values_that_are_not_finite_do_not_stay_in_the_window():
    recent, other = RecentLosses(), RecentLosses()
    for i, loss in enumerate(normal_losses(200)):
        if i % 3 == 0:
            assert recent.sigmas(float("nan")) == recent.sigmas(float("inf")) == 0
        assert recent.sigmas(loss) == other.sigmas(loss)
    assert recent.values == other.values


def test_a_run_that_goes_on_compares_with_the_same_losses():
    losses, whole = normal_losses(300), RecentLosses()
    values = [whole.sigmas(loss) for loss in losses]
    before = RecentLosses()
    for loss in losses[:170]:
        before.sigmas(loss)
    resumed = RecentLosses(before.values)
    assert [resumed.sigmas(loss) for loss in losses[170:]] == values[170:]


@pytest.mark.parametrize(("policy", "error"), [("skip", None), ("stop", NumericsError), ("rewind", Rewind)])
def test_a_step_that_is_not_finite(policy, error):
    judge = Judge(GuardsConfig(non_finite=policy))
    if error is None:
        judge.step(3, False, float("nan"))
        return
    with pytest.raises(error, match="step 3") as caught:
        judge.step(3, False, float("nan"))
    assert caught.value.exit_code == 4


def test_rewinds_are_written_down_and_end(tmp_path):
    attempts = []

    def attempt():
        attempts.append(read_left_out(tmp_path))
        raise Rewind(10 * len(attempts), "bad")

    with pytest.raises(NumericsError, match="step 30: bad, after 2 rewinds; allowed: 2"):
        with_rewinds(GuardsConfig(rewinds=2, leave_out=3), 2, tmp_path, attempt)
    assert [len(one.rewinds) for one in attempts] == [0, 1, 2]
    assert [(one["first"], one["until"]) for one in read_json(tmp_path / REWINDS)] == [(7, 14), (17, 24)]
    assert [step for step in range(30) if attempts[-1].has(step)] == [*range(7, 14), *range(17, 24)]


@pytest.mark.parametrize(
    ("saved", "every", "back"),
    [
        ((100,), 50, 100),
        ((100, 148), 50, 100),
        ((100, 130), 50, 130),
        ((140, 148), 131, 0),  # of signals: the first one that is due comes after what is left out
        ((148,), 130, 148),  # earlier ones were removed
        ((140, 148), 50, 140),
        ((), 50, 0),
    ],
)
def test_a_rewind_goes_back_before_what_is_left_out(tmp_path, saved, every, back):
    for step in saved:
        (tmp_path / ".new").mkdir()
        (tmp_path / ".new" / "state.json").write_text("{}")
        publish_folder(tmp_path / ".new", tmp_path / f"step-{step:08d}", {"kind": "checkpoint"}, {})
    assert _go_back(tmp_path, 130, every) == back
    assert [int(path.name[5:]) for path in sorted(tmp_path.iterdir())] == [step for step in saved if step <= back]


def test_a_checkpoint_that_a_rewind_may_go_to_is_kept(tmp_path, monkeypatch):
    """Whatever is kept, when checkpoints are due, and what is left out: a rewind goes before what it leaves out, to a
    checkpoint where there ever was one, and not far before."""
    monkeypatch.setattr(rewinding, "damage_of", lambda path: None)
    dice = random.Random(0)
    for case in range(60):
        every, keep, leave_out = dice.randrange(1, 9), dice.randrange(1, 4), dice.randrange(25)
        folder = tmp_path / str(case)
        bad, due = dice.randrange(1, 70), []
        for step in range(1, bad + 1):
            if step % every and dice.random() > 0.05:  # else as after a signal
                continue
            due.append(step)
            (folder / f"step-{step:08d}").mkdir(parents=True)
            for path in superfluous(checkpoints(folder), keep, leave_out):
                path.rmdir()
            assert len(checkpoints(folder)) <= keep + 2
        first = max(0, bad - leave_out)
        back, before = _go_back(folder, first, every), [step for step in due if step <= first]
        assert back in before if before else back == 0
        assert back >= first - leave_out - 2 * every


def test_a_resumed_judge_decides_as_the_uninterrupted_one():
    dice = random.Random(0)
    for _ in range(50):
        steps = sorted(dice.sample(range(3000), dice.randrange(5, 60)))

        def judged(resumed_at, steps=steps):
            judge, progress = Judge(GuardsConfig()), Progress()
            for step in range(3000):
                if step in resumed_at:
                    progress = Progress(losses=judge.losses, bad_steps=json.loads(json.dumps(judge.bad_steps)))
                    judge = Judge(GuardsConfig(), progress.losses, progress.bad_steps)
                try:
                    judge.step(step, step not in steps, float("nan"))
                except NumericsError as error:
                    return str(error)
            return ""

        assert judged(dice.sample(range(3000), 8)) == judged(())


def test_what_is_paused_or_compiles_is_not_watched(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(heart.time, "monotonic", lambda: now[0])
    watched = Heart(compiles=True)
    watched.mark(WAITING, 0)
    now[0] = 5
    assert watched.still_for == 5
    watched.mark(STEPPING, 0)
    now[0] = 500
    assert watched.still_for == 0, "compiling"
    watched.mark(WAITING, 1)
    watched.mark(STEPPING, 1)
    with watched.paused("probing"):
        now[0] = 1000
        assert watched.still_for == 0
    assert (watched.still_for, watched.longest) == (0, 5)


def test_only_what_is_repeated_says_how_long_a_step_may_take_and_a_stop_of_all_does_not_count(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(heart.time, "monotonic", lambda: now[0])
    watched = Heart()
    for phase, seconds in (("waiting for others", 100), (PASSING, 7)):
        with watched.during(phase, 1):
            now[0] += seconds
            assert watched.still_for == seconds
        assert watched.still_for == 0
    assert watched.longest == 7
    watched.mark(PASSING, 2)
    now[0] += 1000
    watched.forgive(990)
    assert watched.still_for == 10


class Store:
    """As the processes of a run share it; stopped: it does not answer."""

    def __init__(self):
        self.values, self.stopped = {}, False

    def clone(self):
        return self

    def set(self, key, value):
        self.values[key] = value

    def get(self, key):
        while self.stopped:
            time.sleep(0.01)
        return self.values[key]

    def check(self, keys):
        return all(key in self.values for key in keys)


@pytest.fixture
def two(monkeypatch):
    """Both processes of a run, each with its heart, and their store."""
    hearts, store = (Heart(), Heart()), Store()
    monkeypatch.setattr(peers.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(peers.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(peers.distributed_c10d, "_get_default_store", lambda: store)
    both = []
    for rank, own in enumerate(hearts):
        monkeypatch.setattr(peers.distributed, "get_rank", lambda rank=rank: rank)
        both.append(peers.Peers(own))
    yield hearts, both, store
    store.stopped = False


def test_a_process_that_is_paused_is_waited_for_as_long_as_it_lives(two, monkeypatch):
    hearts, (first, second), _ = two
    now = [0.0]
    with hearts[1].paused("saving a checkpoint"):
        second.beat()
        assert first.is_waited_for()
        monkeypatch.setattr(peers.time, "monotonic", lambda: now[0])
        second.beat()
        for now[0] in (1, peers.SILENT_SECONDS):
            assert first.is_waited_for()
        now[0] = 2 * peers.SILENT_SECONDS + 1
        assert not first.is_waited_for(), "it was stopped meanwhile"
        second.beat()
        assert first.is_waited_for(), "it goes on"
    second.beat()
    assert not first.is_waited_for()


def test_a_process_says_why_it_cannot_go_on(two):
    _, (first, second), _ = two
    assert first.given_up() == {}
    second.give_up(peers.Failure("out of memory", 2))
    assert first.given_up() == {1: peers.Failure("out of memory", 2)}


def test_what_another_process_has_said_ends_this_one_with_its_exit_code(two, monkeypatch):
    hearts, (first, second), store = two
    now = [0.0]
    monkeypatch.setattr(peers.time, "monotonic", lambda: now[0])
    with peers.peer_errors(first):
        assert first.waits_in_vain(1.0) is None
    first.give_up(peers.Failure("ValueError: it met a tensor that was cut off", peers.DEFECT))
    second.give_up(peers.Failure("out of memory", 2))
    assert first.waits_in_vain(1.0) is None, "it may notice by itself"
    now[0] = peers.LAST_SECONDS + 1
    monkeypatch.setattr(store, "values", {})  # the process that keeps it has ended
    assert str(first.waits_in_vain(1.0)) == "rank 1: out of memory"
    with hearts[0].paused("saving a checkpoint"):
        assert first.waits_in_vain(1.0) is None
    monkeypatch.setattr(peers, "world_size", lambda: 2)
    with pytest.raises(peers.FailedElsewhere) as caught, peers.peer_errors(first):
        raise RuntimeError("[gloo] Connection closed by peer")
    assert (str(caught.value), exit_code_of(caught.value)) == ("rank 1: out of memory", 2)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (MemoryLimitError("one: out of memory"), peers.Failure("one: out of memory", 2)),
        (ValueError("a defect"), peers.Failure("ValueError: a defect", 1)),
        (OSError(28, "No space left on device"), peers.Failure("OSError: [Errno 28] No space left on device", 74)),
        (NumericsError("gradients are not finite"), None),
        (StoppedEarly("stopped by SIGTERM"), None),
    ],
)
def test_the_others_are_told_of_what_one_process_has_alone(two, monkeypatch, error, told):
    _, (first, _), _ = two
    monkeypatch.setattr(peers, "world_size", lambda: 2)
    with pytest.raises(type(error)), peers.told_to_others():  # as rank 1
        raise error
    assert first.given_up() == ({} if told is None else {1: told})


def test_a_store_that_does_not_answer_is_not_waited_for(two, monkeypatch):
    _, (first, second), store = two
    monkeypatch.setattr(peers, "ANSWER_SECONDS", 0.05)
    first.beat()
    assert second.beats_of(0) == 1
    store.stopped = True
    assert second.beats_of(0) == 0
    assert second.signs() is None
    assert not second.is_waited_for()


def test_room_is_for_the_checkpoints_that_are_not_there_yet(tmp_path, monkeypatch):
    one = disk.bytes_of_checkpoint(1000)
    (tmp_path / "step-00000001").mkdir()
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 2 * one)
    disk.require_room(tmp_path, 1000, keep=2)
    with pytest.raises(OSError, match="for 3 checkpoints of 1,000 parameters"):
        disk.require_room(tmp_path, 1000, keep=3)


def test_a_process_knows_its_age():
    assert 0 < hours_since_start() < 24
    assert is_over(1e-9)
    assert not is_over(None)
    assert not is_over(24.0)


def test_weights_that_are_not_finite_are_seen():
    model = nn.Linear(3, 2)
    assert weights_are_finite(model, WHOLE)
    with torch.no_grad():
        model.weight[1, 2] = float("inf")
    assert not weights_are_finite(model, WHOLE)


def test_memory_that_is_not_enough_is_known_by_its_error():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
