"""Processes of one run stop, save and fail together, whatever happens to one of them."""

import os
import signal

import lightning.pytorch as pl
import pytest

from lcprobe.data.config import DataConfig
from lcprobe.data.mixture import Mixture
from lcprobe.errors import StoppedEarly, StoppedUnsaved
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build
from lcprobe.training.checkpoint import checkpoints, damage_of, latest, load_progress
from lcprobe.training.config import TrainConfig
from lcprobe.training.fit import fit
from lcprobe.training.ranks import rank
from lcprobe.training.tensors import writing
from validation.forked import run_forked

SIZES = {
    "layout": "attention+mlp, mamba2",
    "d_model": 16,
    "d_ff": 16,
    "vocab_size": 4096,
    "mixers": {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 4}},
}
STEPS = 8


@pytest.mark.parametrize("strategy", ["fsdp2", pytest.param("ddp", marks=pytest.mark.slow)])
def test_a_signal_to_one_process_stops_all_at_one_step_and_the_run_goes_on(
    prepared, data_settings, tmp_path, strategy
):
    settings = {"devices": 2, "strategy": strategy}
    assert run_forked(2, _trained, prepared, data_settings, settings, tmp_path, "signal") == "stopped"
    stopped = latest(tmp_path / "checkpoints")
    assert load_progress(stopped).step == 4, "a step after the signal, in step 3, all knew it"
    assert run_forked(1, _trained, prepared, data_settings, {}, tmp_path, "") == "done"
    assert load_progress(latest(tmp_path / "checkpoints")).step == STEPS


def test_a_full_disk_of_one_process_costs_all_that_checkpoint_only(prepared, data_settings, tmp_path):
    settings = {"devices": 2, "strategy": "fsdp2", "checkpoint_every": 2 * 256}
    assert run_forked(2, _trained, prepared, data_settings, settings, tmp_path, "full disk") == "done"
    assert [step for step, _ in checkpoints(tmp_path / "checkpoints")] == [8, 6], "of 4, one process had no room"
    assert all(damage_of(path) is None for _, path in checkpoints(tmp_path / "checkpoints"))
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))


@pytest.mark.parametrize("strategy", ["fsdp2", "ddp"])
def test_a_full_disk_of_the_main_process_ends_all_alike(prepared, data_settings, tmp_path, strategy):
    """Whether at a stop or after three checkpoints; in one of several processes alone the others would wait for it."""
    settings = {"devices": 2, "strategy": strategy}
    assert (
        run_forked(2, _trained, prepared, data_settings, settings, tmp_path / "a", "stop on a full disk") == "unsaved"
    )
    settings |= {"checkpoint_every": 256}
    assert run_forked(2, _trained, prepared, data_settings, settings, tmp_path / "b", "disk stays full") == "full"


@pytest.mark.slow
def test_a_process_that_dies_in_a_save_ends_the_run_and_leaves_no_torn_checkpoint(prepared, data_settings, tmp_path):
    settings = {"devices": 2, "strategy": "fsdp2", "checkpoint_every": 2 * 256}
    with pytest.raises(RuntimeError):
        run_forked(2, _trained, prepared, data_settings, settings, tmp_path, "dies")
    assert [step for step, _ in checkpoints(tmp_path / "checkpoints")] == [2]
    assert damage_of(latest(tmp_path / "checkpoints")) is None
    assert run_forked(2, _trained, prepared, data_settings, settings, tmp_path, "") == "done"
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))


class _Signal(pl.Callback):
    """Tells the second process alone to stop, in step 3."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        if rank() == 1 and pl_module.progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)


def _trained(prepared, data_settings, settings, folder, fault):
    """Train in a process of the run: what came of it."""
    base = {"context_length": 32, "batch_tokens": 256, "tokens": 256 * STEPS, "threads": 1, "accelerator": "cpu"}
    config = build(TrainConfig, {**base, "checkpoint_every": 256 * STEPS, **settings}, "train")
    data = build(DataConfig, data_settings, "data")
    mixture = Mixture(
        data, prepared, context_length=32, rows=config.rows, steps=config.steps, parts=config.parts, seed=0
    )
    if rank() == 1 and fault in ("full disk", "dies"):
        writing.save_file = _at_fourth_file(writing.save_file, fault)
    if rank() == 0 and fault in ("stop on a full disk", "disk stays full"):
        writing.save_file = _full
    model = LanguageModel(build(ModelConfig, SIZES, "model"))
    callbacks = [_Signal()] if fault in ("signal", "stop on a full disk") else []
    try:
        fit(config, model, mixture, folder, seed=0, config_yaml="", callbacks=callbacks)
    except StoppedEarly:
        return "stopped"
    except StoppedUnsaved:
        return "unsaved"
    except OSError:
        return "full"
    return "done"


def _full(tensors, path):
    raise OSError(28, "No space left on device")


def _at_fourth_file(real, fault):
    written = []

    def save_file(tensors, path):
        written.append(path)
        if len(written) == 4:  # the second of the second checkpoint
            if fault == "dies":
                os._exit(9)
            raise OSError(28, "No space left on device")
        real(tensors, path)

    return save_file
