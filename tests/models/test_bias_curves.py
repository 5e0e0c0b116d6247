"""Bias curves of a model equal the biases of its encodings, per layer and head."""

import pytest
import torch

from lcprobe.models.bias_curves import bias_curves
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build


def test_rows_equal_the_biases_of_encodings():
    config = {"layout": "attention, mamba2, attention", "d_model": 16, "vocab_size": 32, "positional": "[alibi, t5]"}
    config["mixers"] = {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 4}}
    model = LanguageModel(build(ModelConfig, config, "model")).initialise(0)
    rows = bias_curves(model, 1000)
    assert {(r["layer"], r["head"], r["encoding"]) for r in rows} == {
        (0, 0, "ALiBi"), (0, 1, "ALiBi"), (2, 0, "T5"), (2, 1, "T5"),
    }  # fmt: skip
    assert max(r["distance"] for r in rows) == 999
    for row in rows:
        if row["layer"] == 0:
            assert row["bias"] == pytest.approx(-row["distance"] * 2.0 ** (-8 * (row["head"] + 1) / 2))
        else:
            own = model.blocks[2].mixer.positional.bias(torch.tensor([row["distance"]]))
            assert row["bias"] == pytest.approx(float(own[row["head"], 0].detach()))


def test_encodings_without_bias_give_no_rows():
    config = {"layout": "attention, mamba2", "d_model": 16, "vocab_size": 32, "positional": "rope"}
    config["mixers"] = {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 4}}
    assert bias_curves(LanguageModel(build(ModelConfig, config, "model")), 100) == []
