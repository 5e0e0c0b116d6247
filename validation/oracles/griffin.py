"""rg_lru against the recurrent blocks of RecurrentGemma: transformers', and Google's, which keeps packed documents
apart.

Google's package is installed by `pip install --no-deps recurrentgemma==1.0.1`: it requires jax and flax, which its
blocks in PyTorch do not need. They are imported without its `__init__`.
"""

import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any
from unittest.mock import MagicMock

import torch
from torch import Tensor, nn

from lcprobe.models.token_context import TokenContext
from validation.oracles.cases import SINGLE, Comparison
from validation.oracles.mixers import D_MODEL, LENGTHS, build_mixer, gradients, scaled, transformers_module

WIDTH, BLOCKS = 36, 3


def transformers_block(dtype: torch.dtype) -> Iterator[Comparison]:
    """transformers' block, one document a row; its recurrence is float32 whatever the dtype."""
    if dtype == torch.float64:
        return
    modeling = transformers_module("recurrent_gemma")
    config = modeling.RecurrentGemmaConfig(hidden_size=D_MODEL, lru_width=WIDTH, num_attention_heads=BLOCKS)
    block = modeling.RecurrentGemmaRecurrentBlock(config, 0)
    names = ("rg_lru.input_gate_{}", "rg_lru.recurrent_gate_{}", "weight", "bias", "rg_lru.recurrent_param")

    def convert(named: dict[str, Tensor]) -> dict[str, Tensor]:
        return _converted(named, named["conv_1d.weight"].squeeze(1), named["conv_1d.bias"], *names)

    def run(x: Tensor, positions: Tensor) -> Tensor:
        return block(x, positions, None, use_cache=False)[0]

    yield from _compared("rg_lru", block, run, convert, [(length, []) for length in LENGTHS])


def google_block(dtype: torch.dtype) -> Iterator[Comparison]:
    """Google's block; the recurrence is float32 whatever the dtype."""
    if dtype == torch.float64:
        return
    block = google_modules().RecurrentBlock(width=D_MODEL, num_heads=BLOCKS, lru_width=WIDTH)
    names = ("rg_lru.input_gate.{}", "rg_lru.a_gate.{}", "w", "b", "rg_lru.a_param")

    def convert(named: dict[str, Tensor]) -> dict[str, Tensor]:
        return _converted(named, named["conv_1d.w"].T, named["conv_1d.b"], *names)

    def run(x: Tensor, positions: Tensor) -> Tensor:
        return block(x, positions, return_cache=False)[0]

    rows = [*[(length, []) for length in LENGTHS], (150, [1, 2, 70])]
    yield from _compared("rg_lru", block, run, convert, rows)


def google_modules() -> ModuleType:
    """recurrentgemma.torch.modules. Raises ImportError where the package is not installed."""
    spec = find_spec("recurrentgemma")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError("No module named 'recurrentgemma'")
    bare = {"recurrentgemma": "", "recurrentgemma.torch": "/torch"}
    stubs: dict[str, Any] = {"jaxtyping": MagicMock()}
    for name, folder in bare.items():
        stubs[name] = ModuleType(name)
        stubs[name].__path__ = [path + folder for path in spec.submodule_search_locations]
    before = {name: sys.modules.get(name) for name in stubs}
    sys.modules.update(stubs)
    try:
        return import_module("recurrentgemma.torch.modules")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "recurrentgemma"]:
            del sys.modules[name]
        sys.modules.update({name: module for name, module in before.items() if module is not None})
        if before["jaxtyping"] is None:
            del sys.modules["jaxtyping"]


def _compared(
    name: str,
    theirs: nn.Module,
    run: Callable[[Tensor, Tensor], Tensor],
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    rows: list[tuple[int, list[int]]],
) -> Iterator[Comparison]:
    """Outputs for every (tokens, starts of documents after the first), and gradients for the last. run: x and the
    positions of its tokens in their documents -> outputs."""
    ours = build_mixer({"type": "rg_lru", "expand": WIDTH / D_MODEL, "n_blocks": BLOCKS}, torch.float32)
    with torch.no_grad():
        for i, p in enumerate(theirs.parameters()):
            p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
        weights = convert(dict(theirs.named_parameters()))
        for own_name, parameter in ours.named_parameters():
            parameter.copy_(weights[own_name])
    for length, documents in rows:
        x = torch.randn(2, length, D_MODEL, generator=torch.Generator().manual_seed(length))
        index = torch.arange(length)
        starts = torch.zeros(2, length, dtype=torch.bool).index_fill_(
            1, torch.tensor(documents, dtype=torch.int64), True
        )
        positions = index - torch.where(starts, index, 0).cummax(1).values
        what = f"{length} tokens, {1 + len(documents)} documents" if documents else f"{length} tokens"
        with torch.enable_grad():
            y = ours(x, TokenContext(index, starts=starts if documents else None))[0]
            want = run(x, positions)
        yield scaled(name, f"outputs, {what}", y, want, SINGLE)
        if (length, documents) == rows[-1]:
            yield from gradients(name, (ours, y), (theirs, want), convert, SINGLE)


def _converted(
    named: dict[str, Tensor],
    conv_weight: Tensor,
    conv_bias: Tensor,
    input_gate: str,
    recurrence_gate: str,
    weight: str,
    bias: str,
    a_param: str,
) -> dict[str, Tensor]:
    """Their parameters under our names; with names of gates, and of their weights and biases."""
    gates = [[named[gate.format(part)] for gate in (input_gate, recurrence_gate)] for part in (weight, bias)]
    return {
        "in_proj.weight": torch.cat([named["linear_y.weight"], named["linear_x.weight"]]),
        "in_proj.bias": torch.cat([named["linear_y.bias"], named["linear_x.bias"]]),
        "conv_weight": conv_weight,
        "conv_bias": conv_bias,
        "gate_weight": torch.cat(gates[0], dim=2),
        "gate_bias": torch.cat(gates[1], dim=1).flatten(),
        "a_param": named[a_param],
        "out_proj.weight": named["linear_out.weight"],
        "out_proj.bias": named["linear_out.bias"],
    }
