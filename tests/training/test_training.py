"""Schedules, the guard against non-finite gradients, accumulation, and verified checkpoints."""

import logging
import shutil
import signal

import pytest
import torch

from lcprobe.data.config import DataConfig
from lcprobe.data.mixture import Mixture
from lcprobe.errors import CheckpointError, NumericsError, exit_code_of
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build
from lcprobe.tracking import NoTracker
from lcprobe.training.checkpoint import Progress, latest, load_model, load_optimizer, save_checkpoint
from lcprobe.training.config import TrainConfig
from lcprobe.training.draws import StepDraws
from lcprobe.training.fit import fit
from lcprobe.training.initial_state import initial_state_of
from lcprobe.training.loading.step_batches import StepBatches, micro_batches
from lcprobe.training.optim import lr_at, make_optimizer

SIZES = {"layout": "attention+mlp, mamba2", "d_model": 16, "d_ff": 16, "vocab_size": 4096,
         "mixers": {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 4}}}  # fmt: skip


def train_config(**given):
    base = {
        "context_length": 32,
        "tokens": 32 * 8 * 10,
        "batch_tokens": 32 * 8,
        "lr": 0.01,
        "log_every": 1,
        "threads": 1,
    }
    return build(TrainConfig, {**base, **given}, "train")


def make(prepared, data_settings, **given):
    config = train_config(**given)
    data = build(DataConfig, data_settings, "data")
    mixture = Mixture(
        data, prepared, context_length=32, rows=config.rows, steps=config.steps, parts=config.accumulate, seed=0
    )
    return config, mixture, LanguageModel(build(ModelConfig, SIZES, "model"))


class Rows(NoTracker):
    """A tracker that keeps the rows of metrics."""

    def __init__(self):
        self.rows = []

    def metrics(self, values):
        self.rows.append(dict(values))


def test_schedules_warm_up_stay_and_decay():
    wsd = train_config(schedule="wsd", warmup=0.2, decay=0.3, tokens=32 * 8 * 100)
    rates = [lr_at(wsd, s) / wsd.lr for s in range(100)]
    assert rates[0] == pytest.approx(1 / 20)
    assert rates[19] == 1
    assert set(rates[19:70]) == {1}
    assert rates[85] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.04
    cosine = train_config(schedule="cosine", warmup=0.1, final_lr=0.1, tokens=32 * 8 * 100)
    rates = [lr_at(cosine, s) / cosine.lr for s in range(100)]
    assert rates[55] == pytest.approx(0.55, abs=1e-9)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert lr_at(train_config(schedule="constant"), 9) == 0.01


EPISODES = {
    "recipes": {"lines": {"task": {"type": "niah", "n_keys": 2, "n_queries": 2, "template": "line", "digits": 2}}},
    "mixture": [{"lm": 0.4, "episodes": {"lines": 1}, "lengths": [1]}],
    "context_weight": 0.0,
}
"""Rows of text have some 31 weighted tokens, those of episodes four or so."""


@pytest.mark.parametrize(
    "accumulate", [pytest.param(2, marks=pytest.mark.slow), 4, pytest.param(8, marks=pytest.mark.slow)]
)
def test_a_step_is_the_same_however_it_is_divided(prepared, data_settings, tmp_path, accumulate):
    """Gradient norms, losses, digests and weights, where parts differ in the weight of their rows."""
    results = []
    for parts in (1, accumulate):
        config, mixture, model = make(prepared, {**data_settings, **EPISODES}, accumulate=parts, tokens=32 * 8 * 4)
        tracker, folder = Rows(), tmp_path / str(parts)
        module = fit(config, model.double(), mixture, folder, seed=0, config_yaml="", tracker=tracker)
        weights = {k: v.detach().clone() for k, v in model.named_parameters()}
        results.append((weights, tracker.rows, module.progress.digest))
    (a, rows, digest), (b, divided, other) = results
    assert digest == other
    for name in ("train/grad_norm", "train/loss", "train/text_loss", "train/answer_loss"):
        assert [row[name] for row in rows] == pytest.approx([row[name] for row in divided], rel=1e-6)
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-6


DRAWN = {
    "randomized": {"positions": {"type": "randomized", "max_length": 512}},
    "pose": {"positions": {"type": "pose", "max_length": 512}},
    "noise": {"initial_state": {"type": "noise", "scale": 3.0, "share": 0.5}},
    "fitted": {"initial_state": {"type": "fitted", "share": 0.7}},
    "passed": {"initial_state": {"type": "passed", "chain": 3, "share": 0.7}},
    "preceding": {"initial_state": {"type": "preceding"}},
    "passed over drawn positions": {
        "initial_state": {"type": "passed", "chain": 2},
        "positions": {"type": "randomized", "max_length": 512},
    },
}


def first_gradients(prepared, data_settings, parts, world, positions=None, **given):
    """Loss and gradients of the first two steps, with the model's parts computed one after the other. world: number
    of processes that they are read by in turn."""
    config = train_config(accumulate=parts, **given)
    data = build(DataConfig, {**data_settings, **EPISODES}, "data")
    sizes = {**SIZES, "initializer_range": 0.5, "mixers": {**SIZES["mixers"]}, "positions": positions}
    model = LanguageModel(build(ModelConfig, sizes, "model")).initialise(0).double()
    initial = None if config.initial_state is None else initial_state_of(config.initial_state, model)
    preceding = 0 if initial is None else initial.preceding
    mixture = Mixture(
        data, prepared, context_length=32, rows=8, steps=config.steps, parts=parts, seed=0, preceding=preceding
    )
    found = []
    needs = (0, False) if initial is None else (initial.earlier, initial.measures_batch)
    readers = [StepBatches(mixture, 0, rank, world, *needs) for rank in range(world)]
    for step in (0, 1):
        model.zero_grad()
        each = [list(micro_batches(reader.step_batch(step))) for reader in readers]
        items = [each[part % world][part // world] for part in range(parts)]
        total = sum(item["step_weight"] for item in items[:world])
        if initial is not None and initial.measures_batch:  # what the processes would add up
            items[0]["own_parts"] = [pair for item in items[:world] for pair in item["own_parts"]]
            items = [{**item, "own_parts": None} if i else item for i, item in enumerate(items)]
        for item in items:
            draws = StepDraws(0, step, item["part"] * len(item["tokens"]))
            state = None if initial is None else initial(model, item, draws)
            draws.reseed("step")
            loss, *_ = model.loss(
                item["tokens"],
                item["weights"],
                starts=item["starts"],
                state=state,
                predicted=item["predicted"],
                total_weight=total,
            )
            loss.backward()
        found.append({k: p.grad.clone() for k, p in model.named_parameters() if p.grad is not None})
    return found


ALIKE = ("noise", "pose")
"""Drawn as others are."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else ()) for name in DRAWN]
)
def test_what_is_drawn_or_measured_is_so_for_a_row_of_the_whole_batch(prepared, data_settings, name):
    """Any division over micro-batches and processes has the same gradients."""
    whole = first_gradients(prepared, data_settings, 1, 1, **DRAWN[name])
    assert max(float(g.abs().max()) for g in whole[0].values()) > 1e-4
    for parts, world in ((4, 2),) if name not in ALIKE else ((4, 1), (8, 2)):
        divided = first_gradients(prepared, data_settings, parts, world, **DRAWN[name])
        for a, b in zip(whole, divided, strict=True):
            for k, value in a.items():
                torch.testing.assert_close(b[k], value, rtol=1e-7, atol=1e-10, msg=f"{k} in {parts} parts")


def test_reports_of_a_resumed_run_are_those_of_the_uninterrupted_one(prepared, data_settings, tmp_path):
    """The checkpoint of step 6 is between the reports of steps 4 and 8: the window goes on."""
    given = {"log_every": 4, "checkpoint_every": 32 * 8 * 3, "keep": 9, "tokens": 32 * 8 * 10}
    rows = {}
    for name in ("whole", "resumed"):
        config, mixture, model = make(prepared, {**data_settings, **EPISODES}, **given)
        tracker, folder = Rows(), tmp_path / name
        if name == "resumed":
            shutil.copytree(tmp_path / "whole/checkpoints/step-00000006", folder / "checkpoints/step-00000006")
        fit(config, model, mixture, folder, seed=0, config_yaml="", tracker=tracker)
        rows[name] = [{k: v for k, v in row.items() if k != "train/tokens_per_second"} for row in tracker.rows]
    assert [row["step"] for row in rows["whole"]] == [4, 8, 10]
    assert rows["resumed"] == rows["whole"][1:]


def test_loss_falls_and_metrics_are_complete(prepared, data_settings, tmp_path):
    config, mixture, model = make(prepared, data_settings, tokens=32 * 8 * 40)
    tracker = Rows()
    fit(config, model, mixture, tmp_path, seed=0, config_yaml="", tracker=tracker)
    assert len(tracker.rows) == 40
    assert tracker.rows[-1]["train/loss"] < tracker.rows[0]["train/loss"] - 1
    for row in tracker.rows:
        assert {"tokens", "step", "train/loss", "train/lr", "train/grad_norm", "train/tokens_per_second"} <= set(row)
    assert tracker.rows[-1]["tokens"] == config.tokens


@pytest.mark.parametrize("bad", [[3], [2, 3, 6]])
def test_a_non_finite_step_is_skipped_and_counted(prepared, data_settings, tmp_path, bad, caplog):
    config, mixture, model = make(prepared, data_settings)
    plain, steps = model.loss, iter(range(10_000))
    before = {}

    def loss(*args, **kwargs):
        value, rows, index = plain(*args, **kwargs)
        step = next(steps)
        if step in bad:
            before[step] = {k: v.detach().clone() for k, v in model.named_parameters()}
        if step - 1 in bad:
            assert all(torch.equal(v, before[step - 1][k]) for k, v in model.named_parameters()), "nothing moved"
        return (value * float("nan") if step in bad else value), rows, index

    model.loss = loss
    with caplog.at_level(logging.WARNING, logger="lcprobe"):
        module = fit(config, model, mixture, tmp_path, seed=0, config_yaml="")
    assert module.progress.skipped == len(bad)
    assert module.progress.step == 10
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert "the step is skipped" in caplog.text


def test_gradients_that_stay_non_finite_stop_the_run_with_finite_checkpoints(prepared, data_settings, tmp_path):
    config, mixture, model = make(prepared, data_settings, tokens=32 * 8 * 40, checkpoint_every=32 * 8)
    plain = model.loss
    model.loss = lambda *a, **k: (plain(*a, **k)[0] * float("inf"), *plain(*a, **k)[1:])
    with pytest.raises(NumericsError, match="11 in a row") as caught:
        fit(config, model, mixture, tmp_path, seed=0, config_yaml="")
    assert caught.value.exit_code == 4
    newest = latest(tmp_path / "checkpoints")
    load_model(newest, model)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_weights_and_moments_are_restored(tmp_path):
    config, model = train_config(), LanguageModel(build(ModelConfig, SIZES, "model")).initialise(3)
    optimizer = make_optimizer(config, model)
    model.loss(torch.randint(0, 4096, (2, 9)), torch.ones(2, 9))[0].backward()
    optimizer.step()
    path = save_checkpoint(tmp_path, Progress(step=5, tokens=7), model, optimizer, "x: 1", keep=2)
    other = LanguageModel(model.config).initialise(4)
    again = make_optimizer(config, other)
    load_model(path, other)
    load_optimizer(path, other, again)
    for (_, p), (_, q) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(p, q)
        for part in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(optimizer.state[p][part], again.state[q][part])


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path):
    model = LanguageModel(build(ModelConfig, SIZES, "model")).initialise(0)
    path = save_checkpoint(tmp_path, Progress(), model, make_optimizer(train_config(), model), "", keep=1)
    wider = LanguageModel(build(ModelConfig, {**SIZES, "d_ff": 24}, "model"))
    with pytest.raises(CheckpointError, match=r"mlp\.out_proj\.weight is .*\(16, 16\); allowed: .*\(16, 24\)"):
        load_model(path, wider)
    deeper = LanguageModel(build(ModelConfig, {**SIZES, "layout": "attention+mlp, mamba2 x 2"}, "model"))
    with pytest.raises(CheckpointError, match=r"lacks blocks\.2"):
        load_model(path, deeper)


def test_a_full_disk_keeps_training_and_the_old_checkpoint(prepared, data_settings, tmp_path, monkeypatch, caplog):
    from lcprobe.training import saving as module

    config, mixture, model = make(prepared, data_settings, checkpoint_every=32 * 8)
    real, calls = module.save_checkpoint, []

    def sometimes(*args, **kwargs):
        calls.append(1)
        if len(calls) in (3, 4):
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(module, "save_checkpoint", sometimes)
    with caplog.at_level(logging.WARNING, logger="lcprobe"):
        done = fit(config, model, mixture, tmp_path, seed=0, config_yaml="")
    assert done.progress.step == 10
    assert caplog.text.count("checkpoint not written") == 2
    assert latest(tmp_path / "checkpoints").name == "step-00000010"
    monkeypatch.setattr(
        module, "save_checkpoint", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    config, mixture, model = make(prepared, data_settings, checkpoint_every=32 * 8)
    with pytest.raises(OSError, match="No space"):
        fit(config, model, mixture, tmp_path / "full", seed=0, config_yaml="")


@pytest.mark.parametrize("stop", ["SIGTERM", "train.max_hours"])
def test_a_stop_on_a_full_disk_does_not_say_that_it_saved(prepared, data_settings, tmp_path, monkeypatch, stop):
    from lcprobe.training import saving as module

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_checkpoint", full)
    number = module.TIME_UP if stop == "train.max_hours" else signal.SIGTERM
    monkeypatch.setattr(module.Stopping, "at_step_end", lambda self: number)
    config, mixture, model = make(prepared, data_settings)
    with pytest.raises(
        OSError, match=f"stopped by {stop} at step 1 of 10, and not saved .*No space.*start"
    ) as raised:
        fit(config, model, mixture, tmp_path, seed=0, config_yaml="")
    assert exit_code_of(raised.value) == 74


def test_bfloat16_trains_with_float32_weights_and_states(prepared, data_settings, tmp_path):
    losses = []
    for precision in ("32", "bf16"):
        config, mixture, model = make(prepared, data_settings, tokens=32 * 8 * 30, precision=precision)
        tracker = Rows()
        fit(config, model, mixture, tmp_path / precision, seed=0, config_yaml="", tracker=tracker)
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        losses.append([row["train/loss"] for row in tracker.rows])
    single, half = losses
    assert abs(single[0] - half[0]) < 0.02
    assert abs(single[-1] - half[-1]) < 0.15
    assert half[-1] < half[0] - 1


def test_compiled_blocks_train_the_same(prepared, data_settings, tmp_path):
    import shutil

    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler on a CPU")
    results = []
    for compiled in (False, True):
        config, mixture, _ = make(prepared, data_settings, tokens=32 * 8 * 3, compile=compiled)
        model = LanguageModel(build(ModelConfig, {**SIZES, "layout": "mamba2+mlp"}, "model"))
        fit(config, model, mixture, tmp_path / str(compiled), seed=0, config_yaml="")
        results.append({k: v.detach().clone() for k, v in model.named_parameters()})
    assert results[0].keys() == results[1].keys(), "names without prefixes: checkpoints are exchangeable"
    assert max(float((results[0][k] - results[1][k]).abs().max()) for k in results[0]) < 1e-3


@pytest.mark.parametrize("deterministic", [False, True])
def test_deterministic_holds_while_a_run_trains_and_not_after(prepared, data_settings, tmp_path, deterministic):
    config, mixture, model = make(prepared, data_settings, deterministic=deterministic, tokens=32 * 8 * 2)
    seen = []

    class Look(NoTracker):
        def metrics(self, values):
            seen.append(torch.are_deterministic_algorithms_enabled())

    fit(config, model, mixture, tmp_path, seed=0, config_yaml="", tracker=Look())
    assert set(seen) == {deterministic}
    assert not torch.are_deterministic_algorithms_enabled()
