"""A model with a little training, one without, and tasks to probe them on."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcprobe.data.config import DataConfig
from lcprobe.data.mixture import Mixture
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.schema import build
from lcprobe.training.config import TrainConfig
from lcprobe.training.fit import fit
from tests.shared import made_once

LINE = {"type": "niah", "template": "line", "digits": 2}
TASKS = {
    "single": {**LINE, "n_keys": 1},
    "multikey": {**LINE, "n_keys": 3},
    "twice": {**LINE, "n_keys": 3, "n_queries": 2},
}


def new_model(d_model=32):
    sizes = {"layout": "attention, mamba2", "d_model": d_model, "vocab_size": 4096, "initializer_range": 0.1}
    mixers = {"attention": {"head_dim": 16, "d_conv": 4}, "mamba2": {"head_dim": 16, "d_state": 16, "chunk_size": 32}}
    return LanguageModel(build(ModelConfig, {**sizes, "mixers": mixers}, "model"))


@pytest.fixture(scope="session")
def untrained():
    return new_model().initialise(0).eval()


@pytest.fixture(scope="session")
def trained(prepared, data_settings, tmp_path_factory):
    """A model after some seconds of training on lines, once for all workers: some of its answers are right, others
    wrong."""
    recipes = {"lines": {"task": {**LINE, "n_keys": 2, "n_queries": 2}, "haystack": ["words"]}}
    data = build(
        DataConfig, {**data_settings, "recipes": recipes, "mixture": [{"lm": 0.0, "episodes": {"lines": 1}}]}, "data"
    )
    given = {
        "context_length": 64,
        "tokens": 64 * 8 * 300,
        "batch_tokens": 64 * 8,
        "lr": 0.01,
        "schedule": "wsd",
        "decay": 0.3,
    }
    config = build(TrainConfig, given, "train")

    def train(folder: Path) -> None:
        mixture = Mixture(data, prepared, context_length=64, rows=8, steps=300, parts=1, seed=0)
        model = new_model()
        fit(config, model, mixture, folder, seed=0, config_yaml="")
        save_file(model.state_dict(), folder / "trained.safetensors")

    model = new_model()
    model.load_state_dict(load_file(made_once(tmp_path_factory, "trained", train) / "trained.safetensors"))
    return model.eval()


@pytest.fixture(scope="session")
def tasks(materials):
    return TaskSet(build(ProbeConfig, {"tasks": TASKS}, "probe"), materials)


@pytest.fixture(autouse=True)
def _no_garbage_collection(monkeypatch):
    """Every out-of-memory error collects garbage, which takes long in a process with many objects."""
    monkeypatch.setattr("lcprobe.probing.engines.freeing.gc.collect", lambda: 0)


@pytest.fixture(autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
