"""Matching: within 1 % of any budget, pinned sizes stay, mismatched studies are refused."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lcprobe.config import load
from lcprobe.errors import ConfigError
from lcprobe.models.config import MatchConfig, ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.matching import Matched, match, mismatch_of
from lcprobe.schema import build
from lcprobe.studies.planning.plan import make_plan

MIXERS = {"attention": {"head_dim": 32, "d_conv": 4}, "mamba2": {"head_dim": 32, "d_state": 64}}


def spread_of(matched: dict[str, Matched]) -> float:
    return mismatch_of([m.cost.params for m in matched.values()])


def model(**given):
    return build(ModelConfig, {"vocab_size": 4096, "mixers": MIXERS, **given}, "model")


def matched_at(models, rules, length):
    """The matched models, with costs at one length."""
    return match(models, rules, dict.fromkeys(models, length))


def rules(**given):
    return build(MatchConfig, given, "match")


def test_quickstarts_three_models_are_within_one_percent():
    matched = {run.group: run.matched for run in make_plan(load(["configs/quickstart.yaml"], [])).runs}
    assert spread_of(matched) < 0.01
    assert set(matched) == {"transformerpp", "mamba2", "hybrid"}
    for m in matched.values():
        built = LanguageModel(m.config)
        assert sum(p.numel() for p in built.parameters()) == m.cost.params
        assert m.config.d_model == 64


@settings(max_examples=1, deadline=None)
@given(st.integers(1_000_000, 60_000_000))
@example(1_000_000)
@example(60_000_000)
def test_any_budget_is_met_with_free_sizes(budget):
    models = {
        "transformerpp": model(layout="attention+mlp", n_layers="solve"),
        "hybrid": model(layout="mamba2+mlp x 3, attention+mlp", n_layers="solve"),
    }
    matched = matched_at(models, rules(budget=budget), 512)
    assert all(abs(m.mismatch) <= 0.01 for m in matched.values())
    steps = 8 if budget < 20_000_000 else 128
    assert all(m.config.d_model % steps == 0 for m in matched.values())


def test_published_scale_solves_to_the_known_width():
    big = {"vocab_size": 50277, "mixers": {"attention": {"head_dim": 128}}}
    models = {
        "mamba2": model(layout="mamba2 x 64", d_model=2560, **{**big, "mixers": {}}),
        "transformerpp": model(layout="attention+mlp x 32", d_model=2560, **big),
    }
    matched = matched_at(models, rules(budget="mamba2"), 2048)
    assert matched["transformerpp"].config.d_ff == 7040
    assert spread_of(matched) < 0.002


def test_mismatched_models_are_refused_unless_allowed():
    models = {"a": model(layout="mamba2", d_model=64), "b": model(layout="mamba2", d_model=128)}
    with pytest.raises(ConfigError, match=r"^match: given 'models .* apart .*allowed: <= 2%"):
        matched_at(models, rules(), 128)
    assert spread_of(matched_at(models, rules(allow_mismatch=True), 128)) > 0.5


@pytest.mark.parametrize(
    ("models", "budget", "key"),
    [
        ({"a": {"layout": "mamba2"}}, None, "model.d_model"),
        ({"a": {"layout": "mamba2"}}, "b", "match.budget"),
        ({"a": {"layout": "mamba2"}}, "a", "match.budget"),
        (
            {"a": {"layout": "mamba2", "d_model": 64}, "b": {"layout": "attention+mlp", "d_model": 40}},
            "a",
            "match.budget",
        ),
    ],
)
def test_unsolvable_sizes_give_the_key(models, budget, key):
    with pytest.raises(ConfigError) as caught:
        matched_at({name: model(**given) for name, given in models.items()}, rules(budget=budget), 128)
    assert caught.value.key == key


def test_flops_of_attention_grow_with_length_and_those_of_mamba2_do_not():
    models = {"a": model(layout="attention+mlp x 2", d_model=64), "m": model(layout="mamba2 x 2", d_model=64)}
    short, long = (matched_at(models, rules(budget="m"), n) for n in (128, 8192))
    assert long["a"].cost.flops > 3 * short["a"].cost.flops
    assert long["m"].cost.flops == short["m"].cost.flops
    assert torch.tensor([long["a"].cost.blocks.kv_bytes]) == 64 * short["a"].cost.blocks.kv_bytes


WINDOWED = {"local": {"type": "attention", "head_dim": 16, "window": 40}, "mamba2": {"head_dim": 16, "d_state": 16}}


@pytest.mark.parametrize("by", ["params", "flops", "state_bytes"])
def test_models_are_matched_in_what_is_asked_for(by):
    """And not in the other two. Windows are longer than the sequences, and full all the same."""
    models = {
        "windowed": model(layout="local+mlp", n_layers="solve", mixers=WINDOWED),
        "mamba2": model(layout="mamba2+mlp", n_layers="solve", mixers=WINDOWED),
    }
    budget = {"params": 500_000, "flops": 2_000_000, "state_bytes": 60_000}[by]
    matched = matched_at(models, rules(by=by, budget=budget), 24)
    for m in matched.values():
        net = LanguageModel(m.config)
        _, state = net.hidden(torch.zeros(1, 50, dtype=torch.int64), state=net.new_state(1))
        sizes = {
            "params": sum(p.numel() for p in net.parameters()),
            "flops": m.cost.flops,
            "state_bytes": state.nbytes,
        }
        assert sizes[by] == m.amount
        assert abs(m.mismatch) <= 0.01
    others = {
        "params": lambda m: m.cost.params,
        "flops": lambda m: m.cost.flops,
        "state_bytes": lambda m: m.config.d_model,
    }
    assert any(
        others[other](matched["windowed"]) != others[other](matched["mamba2"]) for other in others if other != by
    )


def test_a_named_model_sets_the_flops_at_its_own_length():
    models = {
        "a": model(layout="attention x 2", d_model=64),
        "b": model(layout="attention+mlp", n_layers=2, d_model=64),
    }
    matched = match(models, rules(by="flops", budget="a"), {"a": 4096, "b": 64})
    assert matched["a"].mismatch == 0
    assert abs(matched["b"].mismatch) < 0.01
    assert matched["b"].cost.params > matched["a"].cost.params


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"layout": "attention+mlp"}, r"^match\.by: given 'state_bytes of a'; allowed: params \| flops where attention has no"),
        ({"layout": "mamba2, attention", "d_model": 64}, r"^match\.by: given 'state_bytes of a'; allowed: params \| flops wh"),
        ({"layout": "sinks", "mixers": {"sinks": {"type": "attention", "window": 8, "sinks": 1}}}, r"^match\.by: .*or a window with sinks"),
    ],
)  # fmt: skip
def test_a_state_that_grows_with_length_is_not_matched(given, says):
    with pytest.raises(ConfigError, match=says):
        matched_at({"a": model(**given)}, rules(by="state_bytes", budget=100_000), 128)
    with pytest.raises(ConfigError, match=r"^match\.by: given 'stat'"):
        rules(by="stat")
