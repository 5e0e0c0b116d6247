"""Distinct trials have distinct names, that folders can have; a trial that is drawn again is one."""

import pytest

from lcprobe.files import SAFE_NAME
from lcprobe.studies.sweeps.trial_names import named, short_keys

HEADS = ("model.mixers.attention.head_dim", "model.mixers.mamba2.head_dim")


def trials_of(key, *values):
    return [{key: value} for value in values]


@pytest.mark.parametrize(
    "trials",
    [
        [dict(zip(HEADS, pair, strict=True)) for pair in ((4, 4), (4, 8), (8, 4), (8, 8))],
        trials_of("train.lr", 0.12345678, 0.12345679, 0.1),
        trials_of("data.corpus", "a/b", "a_b", "a b", "a:b"),
        trials_of("model.layout", *("mamba2, " * 20 + end for end in ("mamba2", "attention", "attention+mlp"))),
        trials_of("model.n_layers", None, "none", 2),
        trials_of("train.lr", 1, 1.0),
        [{"a.x": "1-y=2", "a.y": "3"}, {"a.x": "1", "a.y": "2-y=3"}],
        [{"lr": 1, "train.lr": 2}, {"lr": 2, "train.lr": 1}],
    ],
)
def test_no_two_trials_have_one_name(trials):
    own = named(trials)
    assert [*own.values()] == trials
    assert all(SAFE_NAME.fullmatch(name) and len(name) <= 100 for name in own)


def test_names_are_short_where_that_tells_trials_apart():
    assert [*named(trials_of("train.lr", 0.01, 0.1234567891))] == ["lr=0.01", "lr=0.123457"]
    assert [*named(trials_of("train.lr", 0.12345678, 0.12345679))] == ["lr=0.12345678", "lr=0.12345679"]
    assert short_keys([*HEADS, "train.lr", "lr"]) == {
        HEADS[0]: "attention.head_dim", HEADS[1]: "mamba2.head_dim", "train.lr": "train.lr", "lr": "lr",
    }  # fmt: skip
    assert [*named(trials_of("seed", 3, 4, 3))] == ["seed=3", "seed=4"], "drawn again"
