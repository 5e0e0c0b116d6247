"""Checkpoints that other projects' code wrote compute the same in ours; a small difference of names or order would show."""

import json

import pytest
import torch

from lcprobe.models.checkpoints.export import export
from lcprobe.models.checkpoints.load import load_published, recognised
from validation.checkpoints import LIMIT, cases, row_of
from validation.checkpoints.cases import LENGTHS, VOCAB, Case, tokens_of
from validation.oracles.mixers import transformers_module

FAST = (
    "mamba_ssm: mamba2attn, equations",
    "hf_llama: Qwen3, transformers",
    "hf_mamba2: Mamba2, transformers",
    "hf_qwen3_5_text: Qwen3.5, transformers",
    "rwkv: RWKV-7, rwkv",
)
MODULES = {"flash-linear-attention": "fla"}
"""Modules of packages with another name."""


def case_named(name: str) -> Case:
    return next(case for case in cases() if case.name == name)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(case.name, marks=[] if case.name in FAST else pytest.mark.slow)
        for case in cases()
        if case.peer != "mamba-ssm"  # needs its source: python -m validation checkpoints mamba_ssm=FOLDER
    ],
)
def test_logits_are_those_of_the_peer(name):
    case = case_named(name)
    if case.peer != "equations":
        pytest.importorskip(MODULES.get(case.peer, case.peer))
    row = row_of(case, (1, 70) if name in FAST else LENGTHS)
    assert row["largest logit"] > 1
    assert max(row["whole"], row["chunks"], row["tokens"]) <= LIMIT


@pytest.mark.slow
@pytest.mark.parametrize("name", [case.name for case in cases() if case.peer == "transformers"])
def test_transformers_reads_what_export_writes(name, tmp_path):
    """Its class from our config.json and tensors has our logits; what sees images is not there."""
    pytest.importorskip("transformers")
    case, tokens = case_named(name), tokens_of(70)
    (tmp_path / "theirs").mkdir()
    case.write(tmp_path / "theirs")
    ours = load_published(recognised(tmp_path / "theirs", case.settings))
    export(ours, case.format, tmp_path / "ours")
    config = json.loads((tmp_path / "ours/config.json").read_text())
    modeling = transformers_module(config["model_type"].removesuffix("_text"))
    back = getattr(modeling, config["architectures"][0]).from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        want, got = ours.logits(ours.hidden(tokens)[0]), back(tokens, use_cache=False).logits
    assert (got - want)[..., :VOCAB].abs().max() <= LIMIT


def test_a_wrong_order_of_tensors_shows(tmp_path):
    """Value and gate of an MLP exchanged in the file."""
    case = case_named("mamba_ssm: transformerpp, equations")

    def write(folder):
        theirs = case.write(folder)
        tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
        name = "backbone.layers.1.mlp.fc1.weight"
        tensors[name] = tensors[name].roll(len(tensors[name]) // 2, 0)
        torch.save(tensors, folder / "pytorch_model.bin")
        return theirs

    row = row_of(Case(case.format, case.architecture, case.peer, write), (9,))
    assert row["whole"] > 100 * LIMIT
