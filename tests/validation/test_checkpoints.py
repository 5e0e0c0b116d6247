"""Checkpoints that other projects' code wrote compute the same in ours; a small difference of names or order would show."""

import pytest
import torch

from validation.checkpoints import LIMIT, cases, row_of
from validation.checkpoints.cases import LENGTHS, Case

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
