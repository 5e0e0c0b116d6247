"""Batches made ahead by worker processes: the same ones, from any step, and no hang where such a process ends."""

import multiprocessing
import os
import shutil
import signal
import threading

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from lcprobe.data.config import DataConfig
from lcprobe.data.mixture import Mixture
from lcprobe.errors import ConfigError, DataError, EpisodeError, LoaderError
from lcprobe.schema import build
from lcprobe.training.config import TrainConfig
from lcprobe.training.fit import fit
from lcprobe.training.loading.loader import MicroBatches, worker_errors
from lcprobe.training.loading.step_batches import StepBatches
from lcprobe.training.loading.workers import workers_of
from tests.training.test_training import make

RECIPES = {
    "lines": {"task": {"type": "niah", "n_keys": 2, "n_queries": 2, "template": "line", "digits": 2}},
    "sentences": {"task": {"type": "niah", "n_keys": 1, "digits": 2}, "haystack": ["corpus", "words"], "key": ["numbers"]},
}  # fmt: skip
STEPS = 7


@pytest.fixture(scope="module")
def mixture(prepared, data_settings):
    stages = [{"lm": 0.4, "episodes": {"lines": 1, "sentences": 1}, "lengths": [1, 0.5]}]
    config = build(DataConfig, {**data_settings, "recipes": RECIPES, "mixture": stages}, "data")
    made = Mixture(config, prepared, context_length=128, rows=8, steps=STEPS, parts=4, seed=3, preceding=1)
    made.keeps = False  # otherwise the first reader would make the batches of all
    return made


def read(steps, **how):
    batches = MicroBatches(steps, **how)
    try:
        return list(batches)
    finally:
        batches.close()


def same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        if name == "own_parts" and value is not None:
            for (tokens, starts, known), (others, other_starts, other_known) in zip(value, b[name], strict=True):
                assert torch.equal(tokens, others)
                assert (starts is None) == (other_starts is None)
                assert np.array_equal(known, other_known)
        elif isinstance(value, np.ndarray):
            assert np.array_equal(value, b[name]), name
            assert np.array_equal(value, a[name.removesuffix("_on_host")].numpy()), name
        elif isinstance(value, torch.Tensor):
            assert torch.equal(value, b[name]), name
        else:
            assert value == b[name], name


@pytest.mark.parametrize(("workers", "prefetch"), [(1, 1), (2, 3)])
def test_workers_make_the_batches_that_the_process_itself_makes(mixture, workers, prefetch):
    """With all that initial states ask for, of the second of two readers, from the third step on."""
    steps = StepBatches(mixture, 2, 1, 2, earlier=3, measures=True)
    before = torch.get_rng_state()
    alone = read(steps)
    ahead = read(steps, workers=workers, prefetch=prefetch)
    assert torch.equal(torch.get_rng_state(), before), "no random number is drawn"
    assert [(one["step"], one["part"]) for one in alone] == [(s, p) for s in range(2, STEPS) for p in (1, 3)]
    assert len(ahead) == len(alone) == len(MicroBatches(steps))
    for a, b in zip(alone, ahead, strict=True):
        same(a, b)


def test_readers_have_the_whole_step_between_them(mixture):
    """Their weights add up to the step's, and each prediction that has a weight is listed."""
    whole = read(StepBatches(mixture, 5, 0, 1))[:4]
    halves = [read(StepBatches(mixture, 5, rank, 2))[:2] for rank in (0, 1)]
    assert float(whole[0]["step_weight"]) == sum(float(half[0]["step_weight"]) for half in halves)
    for number, one in enumerate(whole):
        same({**one, "step_weight": 0}, {**halves[number % 2][number // 2], "step_weight": 0})
        weights = one["weights"][:, 1:].reshape(-1)
        assert torch.equal(one["predicted"], weights.nonzero()[:, 0])
        assert float(weights[one["predicted"]].min()) > 0


def test_an_error_in_a_worker_is_one_line(mixture, monkeypatch):
    def fails(step, part):
        raise EpisodeError("task", "128 tokens", "at least 200 tokens")

    monkeypatch.setattr(mixture, "batch", fails)
    for workers in (0, 1):
        with pytest.raises(DataError, match="^task: given '128 tokens'; allowed: at least 200 tokens$"):
            read(StepBatches(mixture, 0, 0, 1), workers=workers)


def test_a_worker_that_is_killed_ends_the_run_at_once(mixture, monkeypatch):
    parent, plain = os.getpid(), mixture.batch

    def dies(step, part):
        if step == 1 and os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(step, part)

    monkeypatch.setattr(mixture, "batch", dies)
    with (
        pytest.raises(LoaderError, match=r"is gone .*same command resumes") as caught,
        worker_errors(),
    ):
        read(StepBatches(mixture, 0, 0, 1), workers=1)
    assert caught.value.exit_code == 75


class Cut:
    """Batches whose maker dies while it hands one over, as torch's loader sees it."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ConnectionResetError(104, "Connection reset by peer")


def test_a_connection_that_a_dead_worker_cuts_is_told_from_others():
    with pytest.raises(LoaderError, match=r"is gone \(.*reset by peer\)"), worker_errors():
        next(iter(DataLoader(Cut())))
    with pytest.raises(ConnectionResetError), worker_errors():
        Cut()[0]


def test_signals_to_all_processes_leave_the_workers_to_the_training_process(mixture):
    """As a scheduler sends them: the run goes on to the end of its step."""
    batches = MicroBatches(StepBatches(mixture, 0, 0, 1), workers=1, prefetch=1)
    each = iter(batches)
    next(each)
    (worker,) = batches._iterator._workers
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP):
        os.kill(worker.pid, number)
    assert len(list(each)) == STEPS * 4 - 1
    batches.close()
    assert not worker.is_alive()
    assert threading.active_count() == 1 or not any("pin" in thread.name for thread in threading.enumerate())


def test_a_run_with_workers_is_the_run_without(prepared, data_settings, tmp_path):
    """From the start, and resumed in the middle: weights, and the digest of all that was trained on."""
    ends = []
    for workers in (0, 2):
        config, mixture, model = make(prepared, data_settings, workers=workers, checkpoint_every=32 * 8 * 4, keep=9)
        whole = fit(config, model, mixture, tmp_path / str(workers), seed=0, config_yaml="")
        ends.append((whole.progress.digest, {k: v.detach().clone() for k, v in model.named_parameters()}))
    for step in ("step-00000008", "step-00000010"):
        shutil.rmtree(tmp_path / "0/checkpoints" / step)
    config, mixture, model = make(prepared, data_settings, workers=1, prefetch=1)
    resumed = fit(config, model, mixture, tmp_path / "0", seed=0, config_yaml="")
    ends.append((resumed.progress.digest, dict(model.named_parameters())))
    for digest, weights in ends[1:]:
        assert digest == ends[0][0]
        assert all(torch.equal(value, ends[0][1][name]) for name, value in weights.items())
    assert not multiprocessing.active_children()


def test_who_makes_batches_where_the_config_does_not_say():
    plain, given = build(TrainConfig, {}, "train"), build(TrainConfig, {"workers": 3}, "train")
    assert workers_of(plain, gpu=False, kept=False, cores=64) == 0, "cores compute"
    assert workers_of(plain, gpu=True, kept=True, cores=64) == 0, "batches are kept for the next model"
    assert workers_of(plain, gpu=True, kept=False, cores=64) == 2
    assert workers_of(plain, gpu=True, kept=False, cores=2) == workers_of(plain, gpu=True, kept=False, cores=1) == 1
    assert workers_of(given, gpu=False, kept=True, cores=1) == 3


def test_workers_where_processes_cannot_be_forked_are_refused(monkeypatch):
    monkeypatch.setattr("multiprocessing.get_all_start_methods", lambda: ["spawn"])
    assert workers_of(build(TrainConfig, {}, "train"), gpu=True, kept=False, cores=64) == 0
    with pytest.raises(ConfigError, match=r"^train\.workers: given 3; allowed: 0 \(processes cannot be forked"):
        workers_of(build(TrainConfig, {"workers": 3}, "train"), gpu=True, kept=False, cores=64)
