"""A curriculum of context lengths: every kind of model trains with it, and a run that is interrupted before a
change of length ends as an uninterrupted one, to the bit."""

import lightning.pytorch as pl
import pytest
import torch

from lcprobe.data.config import DataConfig
from lcprobe.data.mixture import Mixture
from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build, plain
from lcprobe.training.config import TrainConfig
from lcprobe.training.fit import fit
from lcprobe.training.initial_state import initial_state_of

LENGTH, ROWS, STEPS = 64, 4, 8
STEP = LENGTH * ROWS
SCHEDULE = [{"until": 0.25, "length": "16t"}, {"until": 0.5, "length": 0.5}, {"length": 1}]
SEQLENS = [16, 16, 32, 32, 64, 64, 64, 64]
MIXERS = {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 4}}
MODELS = {
    "attention": {"layout": "attention+mlp"},
    "learned positions": {"layout": "attention+mlp", "positional": "learned"},
    "drawn positions": {"layout": "attention+mlp", "positions": {"type": "randomized", "max_length": 256}},
    "skipping positions": {"layout": "attention+mlp", "positions": {"type": "pose", "max_length": 256}},
    "mamba2": {"layout": "mamba2 x 2"},
    "hybrid": {"layout": "attention+mlp, mamba2"},
}
RECIPES = {"lines": {"task": {"type": "niah", "n_keys": 1, "template": "line", "digits": 1}, "haystack": ["words"]}}


def train_config(**given) -> TrainConfig:
    base = {"context_length": LENGTH, "tokens": STEP * STEPS, "batch_tokens": STEP, "lr": 0.01, "log_every": 1}
    more = {"threads": 1, "length_schedule": SCHEDULE, "checkpoint_every": 3 * STEP}
    return build(TrainConfig, {**base, **more, **given}, "train")


class InterruptAt(pl.Callback):
    """Stops training with an error after a step."""

    def __init__(self, step: int):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.progress.step == self.step:
            raise KeyboardInterrupt


def run(prepared, data_settings, folder, settings, interrupts=(), **given):
    """Train to the end, each time from the newest checkpoint; returns the module and the shapes that it was given."""
    config, shapes = train_config(**given), {}
    mixture_of = [{"lm": 0.5, "episodes": {"lines": 1}}]
    data = build(DataConfig, {**data_settings, "recipes": RECIPES, "mixture": mixture_of}, "data")
    for step in (*interrupts, None):
        model_config = {"d_model": 16, "d_ff": 16, "vocab_size": 4096, "mixers": MIXERS, "context_length": LENGTH}
        model = LanguageModel(build(ModelConfig, {**model_config, **settings}, "model"))
        preceding = 0
        if config.initial_state is not None:
            preceding = initial_state_of(config.initial_state, model).preceding
        mixture = Mixture(
            data, prepared, context_length=LENGTH, rows=config.rows, steps=config.steps, parts=config.accumulate,
            seed=0, preceding=preceding, schedule=config.length_schedule,
        )  # fmt: skip
        batch = mixture.batch

        def noted(step, part, batch=batch):
            found = batch(step, part)
            shapes[step] = found.tokens.shape
            return found

        mixture.batch = noted
        callbacks = [] if step is None else [InterruptAt(step)]
        try:
            module = fit(config, model, mixture, folder, seed=0, config_yaml="", callbacks=callbacks)
        except (KeyboardInterrupt, SystemExit):
            assert step is not None
            continue
        assert step is None, "the interrupt must hit"
        return module, shapes
    raise AssertionError


def same(a, b) -> bool:
    left, right = dict(a.model.named_parameters()), dict(b.model.named_parameters())
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def some(names, quick):
    """All of the names; those that are not quick ones are for the slow suite."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", some(MODELS, ["hybrid", "drawn positions"]))
def test_every_model_trains_and_resumes_across_changes_of_length(prepared, data_settings, tmp_path, name):
    whole, shapes = run(prepared, data_settings, tmp_path / "whole", MODELS[name])
    assert [shapes[step] for step in range(STEPS)] == [(STEP // n, n) for n in SEQLENS]
    assert whole.progress.tokens == STEP * STEPS
    assert all(torch.isfinite(p).all() for p in whole.model.parameters())
    # the checkpoint is at 3, before the last change of length
    resumed, _ = run(prepared, data_settings, tmp_path / "resumed", MODELS[name], interrupts=(5,))
    assert resumed.progress.digest == whole.progress.digest
    assert same(resumed, whole)


@pytest.mark.parametrize("state", some(["passed", "preceding", "noise", "fitted"], ["preceding"]))
def test_initial_states_go_with_a_schedule(prepared, data_settings, tmp_path, state):
    whole, _ = run(prepared, data_settings, tmp_path / "whole", MODELS["hybrid"], initial_state=state)
    resumed, _ = run(prepared, data_settings, tmp_path / "resumed", MODELS["hybrid"], (5,), initial_state=state)
    assert same(resumed, whole)
    assert all(torch.isfinite(p).all() for p in whole.model.parameters())


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ([{"until": 0.5, "length": 0.5}, {"length": 0.25}], r"^train.length_schedule: given '32 until 0.5, then 16'; allowed: .* reaches context_length \(64\)"),
        ([{"until": 1.0, "length": 0.5}], r"^train.length_schedule: given 0.5; allowed: a schedule that reaches"),
        ([{"until": 0.99, "length": 0.5}, {"length": 1}], "allowed: a schedule that reaches"),
        ([{"until": 0.5, "length": 0.3}, {"length": 1}], r"^train.length_schedule\[0\].length: given 0.3; allowed: a multiple that gives whole tokens of 64"),
        ([{"until": 0.5, "length": "48t"}, {"length": 1}], r"^train.length_schedule\[0\].length: given '48t'; allowed: a divisor of context_length \(64\)"),
        ([{"until": 0.5, "length": "128t"}, {"length": 1}], r"^train.length_schedule\[0\].length: given '128t'; allowed: a divisor"),
        ([{"until": 0.5, "length": 0.5}, {"until": 0.4}], r"^train.length_schedule\[1\].until: given 0.4; allowed: 0.5 < until <= 1"),
        ([{"until": 0.5, "length": 0.5}, {"until": 0.9}], r"^train.length_schedule: given 'until 0.9'; allowed: a last stage with until: 1"),
        ([{"until": 0.5, "lenght": 0.5}, {}], "lenght"),
    ],
)  # fmt: skip
def test_a_wrong_schedule_is_one_clear_line(schedule, message):
    with pytest.raises(ConfigError, match=message) as caught:
        train_config(length_schedule=schedule)
    assert "\n" not in str(caught.value)


def test_a_schedule_is_written_as_it_was_read():
    config = train_config()
    assert plain(config)["length_schedule"] == [
        {"until": 0.25, "length": "16t"}, {"until": 0.5, "length": 0.5}, {"until": 1.0, "length": 1.0},
    ]  # fmt: skip
    assert build(TrainConfig, plain(config), "train") == config
