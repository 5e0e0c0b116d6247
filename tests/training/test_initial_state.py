"""Initial states: their values and their effect, and studies whose runs start from one another."""

import numpy as np
import pytest
import torch

from lcprobe.choices import choose
from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.errors import ConfigError
from lcprobe.files import read_json
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build
from lcprobe.training import INITIAL_STATES
from lcprobe.training.config import TrainConfig
from lcprobe.training.draws import StepDraws
from lcprobe.training.initial_state import initial_state_of
from tests.tiny import write_config

LAYOUT = "attention, mamba2, mamba2"


def model(layout=LAYOUT):
    mixers = {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 4}}
    config = {"layout": layout, "d_model": 16, "vocab_size": 32, "mixers": mixers, "initializer_range": 0.5}
    return LanguageModel(build(ModelConfig, config, "model")).initialise(2).double()


def batch(rows=4, seqlen=12, before=0, seed=0):
    g = torch.Generator().manual_seed(seed)
    tensors = {"tokens": torch.randint(0, 30, (rows, seqlen), generator=g), "starts": None}
    tensors["starts_on_host"] = None
    if before:
        tensors["before"] = torch.randint(0, 30, (rows, before), generator=g)
        tensors["before_starts"] = torch.zeros(rows, before, dtype=torch.bool)
        tensors["before_starts_on_host"] = tensors["before_starts"].numpy()
    return tensors


def drawn(choice, net, given, step=0):
    """The initial state of a whole batch in one part."""
    initial = initial_state_of(choose(INITIAL_STATES, choice, "train.initial_state"), net)
    rows = given["tokens"]
    places = [-back % len(rows) for back in range(initial.earlier, 0, -1)]
    more = {"earlier": rows[places], "earlier_starts": None, "earlier_starts_on_host": None}
    more["own_parts"] = [(rows, given["starts"], given["starts_on_host"])]
    return initial(net, given | more, StepDraws(0, step, 0))


def test_a_passed_state_is_the_one_after_the_rows_before():
    net, given = model(), batch()
    state = drawn({"type": "passed", "chain": 2}, net, given)
    want = net.new_state(4)
    for back in (2, 1):
        _, want = net.hidden(given["tokens"].roll(back, 0), state=want)
        want = type(want)(
            tuple(w if w.recurrent else n for w, n in zip(want.layers, net.new_state(4).layers, strict=True)),
            (None,) * len(want.layers),
            0,
        )
    for got, layer in zip(state.layers, want.layers, strict=True):
        for name in layer.recurrent:
            torch.testing.assert_close(getattr(got, name), getattr(layer, name), rtol=1e-12, atol=1e-14)
            assert getattr(got, name).abs().max() > 0
    assert state.position == 0
    assert state.layers[0].cache.k.shape[1] == 0, "attention begins empty"


def test_preceding_text_changes_the_loss_as_reading_it_does():
    net, given = model("mamba2 x 2"), batch(before=7)
    state = drawn("preceding", net, given)
    weights = torch.ones(4, 12)
    with torch.no_grad():
        loss, _, _ = net.loss(given["tokens"], weights, state=state)
        whole, _ = net.hidden(torch.cat([given["before"], given["tokens"]], 1))
        logits = net.logits(whole[:, 7:-1])
        want = torch.nn.functional.cross_entropy(logits.flatten(0, 1), given["tokens"][:, 1:].flatten())
    assert abs(float(loss - want)) < 1e-9


def test_noise_has_its_size_and_fitted_noise_that_of_final_states():
    net, given = model(), batch(rows=64)
    noise = drawn({"type": "noise", "scale": 0.3}, net, given)
    assert abs(float(noise.layers[1].ssm.std()) - 0.3) < 0.01
    assert not noise.layers[1].conv.any()
    fitted = drawn("fitted", net, given).layers[2].ssm
    _, state = net.hidden(given["tokens"], state=net.new_state(64))
    real = state.layers[2].ssm
    for head in range(real.shape[1]):
        assert abs(float(fitted[:, head].detach().std() / real[:, head].detach().std()) - 1) < 0.05
        assert abs(float(fitted[:, head].mean() - real[:, head].mean())) < 0.1 * float(real[:, head].std())


def test_a_share_of_the_rows_starts_with_zeros():
    net, given = model(), batch(rows=200)
    state = drawn({"type": "noise", "share": 0.3}, net, given)
    empty = [~layer.ssm.flatten(1).any(1) for layer in state.layers[1:]]
    assert torch.equal(empty[0], empty[1]), "the same rows in every layer"
    assert abs(float(empty[0].double().mean()) - 0.7) < 0.1


def test_wrong_choices_are_one_line():
    with pytest.raises(ConfigError, match="no recurrent layer"):
        initial_state_of(choose(INITIAL_STATES, "passed", "train.initial_state"), model("attention x 2"))
    with pytest.raises(ConfigError, match="did you mean 'passed'"):
        initial_state_of(choose(INITIAL_STATES, "pased", "train.initial_state"), model())


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_no_row_starts_from_a_state_that_has_read_it(rows):
    net = model("mamba2 x 2")
    for chain in range(1, 2 * rows):
        state, given = {"type": "passed", "chain": chain}, batch(rows=rows)
        train = {"context_length": 12, "accumulate": rows, "batch_tokens": 12 * rows, "initial_state": state}
        if chain >= rows:
            allowed = f"< {rows}, the rows of a step"
            with pytest.raises(ConfigError, match=rf"train\.initial_state\.chain: given {chain}; allowed: {allowed}"):
                build(TrainConfig, train, "train")
            continue
        build(TrainConfig, train, "train")
        before = drawn(state, net, given)
        for row in range(rows):
            other = {**given, "tokens": given["tokens"].clone()}
            other["tokens"][row] = (other["tokens"][row] + 7) % 30
            after = drawn(state, net, other)
            same = [torch.equal(a.ssm[row], b.ssm[row]) for a, b in zip(before.layers, after.layers, strict=True)]
            assert all(same)
            assert not torch.equal(before.layers[1].ssm, after.layers[1].ssm), "others have read it"


def test_text_comes_with_the_text_before_it_in_its_document(prepared_mixture):
    mixture, data = prepared_mixture
    text = episodes = 0
    for step in range(6):
        part = mixture.batch(step, 0)
        for row in range(len(part.tokens)):
            if not part.text_rows[row]:
                episodes += 1
                assert part.starts[row, 0]
                continue
            whole = np.concatenate([part.before[row], part.tokens[row]])
            inside = np.flatnonzero(np.concatenate([part.before_starts[row], part.starts[row]]))
            if part.starts[row, 0]:
                continue
            text += 1
            begin = int(inside[inside < part.before.shape[1]].max(initial=0))
            stream = data.tokens(0, data.n_tokens)
            places = np.flatnonzero(stream == whole[begin])
            assert any(np.array_equal(stream[p : p + len(whole) - begin], whole[begin:]) for p in places)
    assert text > 3
    assert episodes > 3


@pytest.fixture
def prepared_mixture(data_settings, tmp_path):
    from lcprobe.config import load
    from lcprobe.data.mixture import Mixture
    from lcprobe.data.prepare import prepare
    from lcprobe.studies.planning.plan import make_plan

    config = make_plan(load([str(write_config(tmp_path, data_settings))], [])).runs[0].config
    data = prepare(config.data)
    train = config.train
    return Mixture(
        config.data, data, context_length=train.context_length, rows=8, steps=24, parts=1, seed=0, preceding=2
    ), data


def test_a_study_can_start_from_one_of_its_own_runs(tmp_path, data_settings, capsys):
    """Every initial state trains, resumes only unfinished runs, and is probed."""
    after = {
        name: {"train": {"from": "base", "tokens": 1024, "initial_state": {"type": name}}}
        for name in ("passed", "preceding", "noise", "fitted")
    }
    grid = {"way": {**after, "base": {"train": {"tokens": 2048}}}}
    changes = {"match": {"budget": None}, "model": {"layout": "attention+mlp, mamba2", "d_ff": 24}}
    config = write_config(tmp_path, data_settings, grid=grid, **changes)
    assert train_main([str(config)]) == 0
    runs = tmp_path / "runs" / "tiny"
    base = read_json(runs / "base" / "status.json")
    for name in after:
        status = read_json(runs / name / "status.json")
        assert status["from"].startswith(str(runs / "base"))
        assert status["data_digest"] != base["data_digest"], "other data than the base has seen"
    assert train_main([str(config)]) == 0, "nothing is trained twice"
    few = "probe.grids=[{tasks: [single], lengths: [1, 2], depths: 1, n: 2}]"
    assert evaluate_main([str(runs), few, "probe.context=null"]) == 0
    capsys.readouterr()
    other = write_config(tmp_path, data_settings, grid=grid, **{**changes, "model": {"layout": "mamba2 x 2"}})
    assert train_main([str(other), "study.name=other", f"grid.way.base.train.from={runs / 'base'}"]) == 2
    assert "a checkpoint of a model with the same parameters" in capsys.readouterr().err
