"""Mixers against their recurrences, and whole models against transformers' classes with the same weights.

Outputs and the gradients of all parameters, each divided by its largest number: the tolerances hold at the scale of
the logits, or of the gradient. The models compared are such that rounding errors stay small in both: with weights of
the order of 0.2, three layers of Qwen3-Next are 5e-5 off their own float64.
"""

import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from lcprobe.choices import choose
from lcprobe.models.checkpoints import FORMATS
from lcprobe.models.checkpoints.contract import Format, Place
from lcprobe.models.checkpoints.hf_names import attention, gated_mlp
from lcprobe.models.checkpoints.places import gathered
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mixers.attention import AttentionConfig
from lcprobe.models.mixers.contract import Mixer
from lcprobe.models.parameters import owners
from lcprobe.models.token_context import TokenContext
from lcprobe.schema import build
from validation.oracles.cases import DOUBLE, SINGLE, Comparison, label
from validation.oracles.recurrences import RECURRENCES

LENGTHS = (1, 5, 64, 150)
"""Tokens, of which the last cross the chunks of all implementations."""
D_MODEL, VOCAB = 24, 64
KINDS: list[dict[str, Any]] = [
    {"type": "gated_deltanet", "head_dim": 6},
    {"type": "gated_deltanet", "head_dim": 4, "value_heads": 2, "conv_bias": True, "negative_eigenvalues": True},
    {"type": "gla", "head_dim": 6, "rank": 5, "chunk_size": 8},
    {"type": "gla", "head_dim": 4, "expand": 1.5, "expand_v": 0.75, "tau": 3.0},
    {"type": "kda", "head_dim": 6},
    {"type": "kda", "head_dim": 4, "value_heads": 3, "expand_v": 1.5, "rank": 5, "negative_eigenvalues": True},
    {"type": "mamba1", "chunk_size": 7},
    {"type": "mamba1", "d_state": 3, "input_norm_eps": 0.1},
    {"type": "mamba1", "d_state": 5, "expand": 1.5, "d_conv": 2, "dt_rank": 3, "bias": True, "conv_bias": False},
    {"type": "mamba3", "definition": "softplus", "head_dim": 8, "d_state": 6, "chunk_size": 8},
    {
        "type": "mamba3",
        "definition": "heavy_tail",
        "head_dim": 6,
        "d_state": 9,
        "n_groups": 2,
        "rope_fraction": 1.0,
        "output_norm": True,
    },
    {"type": "delta_product", "head_dim": 6},
    {"type": "delta_product", "head_dim": 4, "n_steps": 4, "value_heads": 2, "negative_eigenvalues": False},
    {"type": "gdn2", "head_dim": 6},
    {"type": "gdn2", "head_dim": 4, "value_heads": 3, "expand_v": 1.5, "rank": 5, "negative_eigenvalues": True},
    {"type": "lightning", "head_dim": 6, "chunk_size": 8},
    {"type": "lightning", "head_dim": 4, "expand": 1.5, "decays": "retnet"},
    {"type": "mlstm", "head_dim": 6, "gate_soft_cap": 3.0, "chunk_size": 8},
    {"type": "mlstm", "head_dim": 4, "expand_v": 1.5, "input_bias": 2.0, "eps": 1e-3},
    {"type": "rg_lru", "n_blocks": 4},
    {"type": "rg_lru", "n_blocks": 3, "expand": 1.5, "d_conv": 2},
    {"type": "rwkv6", "head_dim": 6, "d_mix": 3, "d_decay": 5, "chunk_size": 8},
    {"type": "rwkv7", "head_dim": 6, "d_decay": 3, "d_rate": 5, "d_gate": 4, "chunk_size": 8},
]
"""Mixers, with the settings at which they meet their recurrences."""
REQUIRED: dict[str, dict[str, Any]] = {"mamba3": {"definition": "softplus"}}
"""Settings of a mixer that have no default."""


def recurrences(dtype: torch.dtype) -> Iterator[Comparison]:
    """Every mixer of KINDS against its recurrence in float64, outputs and gradients."""
    tolerance = DOUBLE if dtype == torch.float64 else SINGLE
    for kind in KINDS:
        mixer = build_mixer(kind, dtype)
        twin = build_mixer(kind, torch.float64)
        x = torch.randn(2, 40, D_MODEL, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
        with torch.enable_grad():
            ours = mixer(x, TokenContext(torch.arange(40)))[0]
            theirs = RECURRENCES[kind["type"]](dict(twin.named_parameters()), twin.config, x.double())
        yield scaled(label(kind), "outputs", ours, theirs, tolerance)
        yield from gradients(label(kind), (mixer, ours), (twin, theirs), lambda named: named, 5 * tolerance)


def build_mixer(kind: dict[str, Any], dtype: torch.dtype) -> Any:
    """A mixer as initialised, plus noise, so that no parameter has a value at which it makes no difference."""
    mixer: Mixer = choose(MIXERS, kind, "mixer").create(D_MODEL).double()
    with torch.no_grad():
        parameters = dict(mixer.named_parameters())
        for i, (name, owner, own_name) in enumerate(owners(mixer)):
            generator, parameter = torch.Generator().manual_seed(i), parameters[name]
            owner.init_parameter(own_name, parameter.data, generator)
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(parameter.to(dtype))
    return mixer.to(dtype)


def scaled(name: str, what: str, ours: Tensor, theirs: Tensor, tolerance: float) -> Comparison:
    """A comparison relative to the largest of their numbers."""
    scale = theirs.detach().abs().max().clamp_min(1e-30)
    return Comparison(name, what, ours.detach() / scale, theirs.detach() / scale, tolerance)


def gradients(
    name: str,
    ours: tuple[nn.Module, Tensor],
    theirs: tuple[nn.Module, Tensor],
    convert: Callable[[dict[str, Tensor]], Mapping[str, Tensor]],
    tolerance: float,
) -> Iterator[Comparison]:
    """Gradients of all parameters, given (module, outputs) of both sides, for one random gradient of the outputs: one
    comparison, of the parameter where they differ most. convert: their parameters, or gradients, as ours by name."""
    cotangent = torch.randn(theirs[1].shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = []
    for module, out in (ours, theirs):
        named = dict(module.named_parameters())
        grads = torch.autograd.grad(out, list(named.values()), cotangent.to(out.dtype))
        found.append(dict(zip(named, grads, strict=True)))
    want = convert(found[1])
    assert set(want) == set(found[0])
    each = [scaled(name, f"gradients, {key}", found[0][key], want[key], tolerance) for key in want]
    yield max(each, key=lambda one: one.difference)


@contextmanager
def without(package: str) -> Iterator[None]:
    """Imports inside the block find `package` not installed."""
    before = sys.modules.get(package)
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if before is None:
            del sys.modules[package]
        else:
            sys.modules[package] = before


def transformers_module(name: str) -> ModuleType:
    """transformers' module with the classes of a model, on PyTorch alone.

    While it is imported, it chooses flash-linear-attention's kernels where that is installed, and then fails without
    a GPU. So it is imported anew with the package hidden, and what others imported stays as it was.
    """
    path = f"transformers.models.{name}.modeling_{name}"
    importlib.import_module("transformers")
    before = sys.modules.pop(path, None)
    try:
        with without("fla"):
            return importlib.import_module(path)
    finally:
        if before is not None:
            sys.modules[path] = before


@dataclass(frozen=True)
class Peer:
    """A peer's model and the settings of ours that it equals.

    run: tokens (batch, seqlen) and their positions in their documents -> logits. convert: its parameters, or their
    gradients, under the names of ours. packed: starts of further documents in a row of the longest length, for peers
    that keep documents apart.
    """

    name: str
    model: nn.Module
    run: Callable[[Tensor, Tensor], Tensor]
    config: Mapping[str, Any]
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]]
    packed: tuple[int, ...] = ()

    def compare(self) -> Iterator[Comparison]:
        """Logits at every length, and at the longest gradients, too."""
        ours = LanguageModel(build(ModelConfig, {"vocab_size": VOCAB, "d_model": D_MODEL, **self.config}, "model"))
        load(ours, self.convert(dict(self.model.named_parameters())))
        rows: list[tuple[int, tuple[int, ...]]] = [(length, ()) for length in LENGTHS]
        if self.packed:
            rows.append((LENGTHS[-1], self.packed))
        for length, documents in rows:
            tokens = torch.randint(0, VOCAB, (2, length), generator=torch.Generator().manual_seed(length))
            starts, index = torch.zeros(2, length, dtype=torch.bool), torch.arange(length)
            starts[:, documents] = True
            positions = index - torch.where(starts, index, 0).cummax(1).values
            with torch.enable_grad():
                logits = ours.logits(ours.hidden(tokens, starts=starts if documents else None)[0])
                theirs = self.run(tokens, positions)
            what = f"logits, {length} tokens{f', {1 + len(documents)} documents' if documents else ''}"
            yield scaled(self.name, what, logits, theirs, SINGLE)
            if (length, documents) == rows[-1]:
                yield from gradients(self.name, (ours, logits), (self.model, theirs), self.convert, 5 * SINGLE)


def load(ours: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give our module the weights, which are all of its parameters, by name, in their shapes."""
    parameters = dict(ours.named_parameters())
    assert {name: p.shape for name, p in parameters.items()} == {name: w.shape for name, w in weights.items()}
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def perturbed(model: nn.Module) -> nn.Module:
    """A peer's model with noise on its weights, in float32 and for evaluation: nothing stays at 0 or 1."""
    with torch.no_grad():
        for i, p in enumerate(model.float().eval().parameters()):
            p += 0.03 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return model


def published(format: str, model: Any, **mixer: Any) -> tuple[dict[str, Any], Callable[..., dict[str, Tensor]]]:
    """`Peer.config` and `Peer.convert` of a model of transformers whose checkpoints a format of ours reads. mixer:
    further settings of all its mixers."""
    reader: Format[Any] = FORMATS.convert(format, "format").create()
    settings = reader.settings(model.config.to_dict())
    for own in settings["mixers"].values():
        own.update(mixer)
    config = build(ModelConfig, settings, "model")
    places, ours = reader.places(config), dict(LanguageModel(config).named_parameters())
    return settings, lambda named: gathered(places, named, ours)


def outside_mixers(
    named: dict[str, Tensor], n_layers: int, embedding: str, norm: str, norm2: str
) -> dict[str, Tensor]:
    """Everything but the mixers: embedding, head where it is not tied, norms and gated MLPs."""
    places = {f"model.{embedding}.weight": Place("embedding.weight"), "model.norm.weight": Place("norm.weight")}
    if "lm_head.weight" in named:
        places["lm_head.weight"] = Place("head.weight")
    for i in range(n_layers):
        block, layer = f"blocks.{i}.", f"model.layers.{i}."
        places |= gated_mlp(f"{layer}mlp", f"{block}mlp", len(named[f"{layer}mlp.up_proj.weight"]))
        places[f"{layer}{norm}.weight"] = Place(f"{block}norm.weight")
        places[f"{layer}{norm2}.weight"] = Place(f"{block}norm2.weight")
    return gathered(places, named)


def attention_of(named: dict[str, Tensor], i: int, config: AttentionConfig) -> dict[str, Tensor]:
    """The attention of layer i, with its biases and its norms of queries and keys, if any."""
    d_model = named[f"model.layers.{i}.self_attn.q_proj.weight"].shape[1]
    return gathered(attention(f"model.layers.{i}.self_attn", f"blocks.{i}.mixer", config, d_model), named)
