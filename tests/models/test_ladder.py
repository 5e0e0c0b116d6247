"""The ladder of configs/study/ladder.yaml from 1 M to 2.7 B parameters, and the shapes of releases, built on the meta
device."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch

from lcprobe.config import load
from lcprobe.models.config import MatchConfig, ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.matching import match
from lcprobe.models.parts import model_cost
from lcprobe.schema import build

STUDY = load(["configs/study/ladder.yaml"], [])
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = STUDY["grid"]["arch"]
RUNGS = {1e6: 4096, 10e6: 4096, 70e6: 50277, 130e6: 50277, 370e6: 50277, 780e6: 50277, 1.3e9: 50277, 2.7e9: 50277}
"""Parameters, and the vocabulary: that of the shipped tokenizer, or GPT-NeoX's."""


def built_on_meta(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in LanguageModel(config).parameters())


QUICK = ("mamba2", "griffin", "hymba")
"""Architectures that are built in every run of the tests, at 1 M."""


@pytest.mark.parametrize(
    ("rung", "names"), [(1e6, QUICK), *(pytest.param(rung, ARCHITECTURES, marks=pytest.mark.slow) for rung in RUNGS)]
)
def test_every_architecture_meets_every_rung(rung, names):
    for name in names:
        given = ARCHITECTURES[name]
        config = build(ModelConfig, {**given["model"], "vocab_size": RUNGS[rung], "context_length": 2048}, "model")
        rules = build(MatchConfig, {**STUDY["match"], "budget": int(rung)}, "match")
        solved = match({name: config}, rules, {name: 2048})[name]
        assert built_on_meta(solved.config) == solved.cost.params
        assert abs(solved.cost.params / rung - 1) <= 0.01, name


@pytest.mark.parametrize(
    ("file", "params"),
    [
        ("mamba2-2.7b", 2_702_599_680),
        ("hybrid-2.7b", 2_697_590_880),
        ("llama-2.7b", 2_701_560_320),
        ("rwkv6-3b", 3_099_863_040),
        ("recurrentgemma-2b", 2_682_862_080),
    ],
)
def test_shapes_of_releases_have_their_number_of_parameters(file, params):
    given = {"vocab_size": 50277, **load([f"configs/model/{file}.yaml"], [])["model"]}
    config = build(ModelConfig, given, "model")
    assert model_cost(config, 2048).params == params
    assert built_on_meta(config) == params
