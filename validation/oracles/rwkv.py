"""RWKV-6 and RWKV-7 models against PyPI's `rwkv`, the author's inference package, from a checkpoint with the same
weights.

The package has no gradients and no batches; gradients are compared with the recurrences.
"""

import importlib.util
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from lcprobe.models.checkpoints.contract import FormatConfig
from lcprobe.models.checkpoints.export import their_tensors
from lcprobe.models.checkpoints.rwkv import RWKV
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build
from validation.oracles.cases import SINGLE, Comparison
from validation.oracles.mixers import LENGTHS, scaled

Version = Literal["rwkv6", "rwkv7"]
D_MODEL, HEAD_DIM, VOCAB, N_LAYERS = 32, 16, 64, 3
RANKS: dict[Version, dict[str, int]] = {
    "rwkv6": {"d_mix": 4, "d_decay": 6},
    "rwkv7": {"d_decay": 5, "d_rate": 6, "d_value": 4, "d_gate": 7},
}
VERSIONS: tuple[Version, ...] = ("rwkv6", "rwkv7")


def models(dtype: torch.dtype) -> Iterator[Comparison]:
    """Logits at several lengths, and of a sequence that both continue from a state; the package computes in
    float32."""
    if dtype == torch.float64:
        return
    for version in VERSIONS:
        ours = model_of(version)
        with package_model(ours, version) as theirs:
            found = list(_compare(version, ours, theirs))
        yield from found


def _compare(version: Version, ours: LanguageModel, theirs: Any) -> Iterator[Comparison]:
    for length in LENGTHS:
        tokens = _tokens(length)
        want = theirs.forward(tokens.tolist(), None, full_output=True)[0].view(length, VOCAB)
        yield scaled(version, f"logits, {length} tokens", _logits(ours, tokens, [length]), want, SINGLE)
    tokens, cuts, state, parts = _tokens(90), [1, 3, 60, 1, 1, 24], None, []
    for part in tokens.split(cuts):
        logits, state = theirs.forward(part.tolist(), state, full_output=True)
        parts.append(logits.view(-1, VOCAB))
    yield scaled(version, "logits, 90 tokens in parts", _logits(ours, tokens, cuts), torch.cat(parts), SINGLE)


@contextmanager
def package_model(ours: LanguageModel, version: Version, jit: bool = False) -> Iterator[Any]:
    """The package's model with our weights, on a CPU in float32. jit: compile with TorchScript, its default."""
    settings = {"RWKV_V7_ON": version == "rwkv7", "RWKV_JIT_ON": jit, "RWKV_CUDA_ON": False}
    with _environment(settings):
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
            save_release(ours, Path(folder) / "model.pth")
            model = _package(version).RWKV(str(Path(folder) / "model"), "cpu fp32")
        yield model


def save_release(ours: LanguageModel, path: Path) -> None:
    """Write a model as RWKV-LM does."""
    tensors = their_tensors(RWKV(FormatConfig()), ours)
    torch.save({name: tensor.detach().clone() for name, tensor in tensors}, path)


def model_of(version: Version, ranks: Mapping[str, int] | None = None) -> LanguageModel:
    """A model as initialised plus noise. ranks: by default RANKS."""
    settings: dict[str, Any] = {"head_dim": HEAD_DIM, "chunk_size": 16, **(ranks or RANKS[version])}
    config = {"layout": f"{version}+mlp", "n_layers": N_LAYERS, "d_model": D_MODEL, "d_ff": 48, "vocab_size": VOCAB,
              "tie_embeddings": False, "norm": "layer", "embedding_norm": True, "mlp": version,
              "mixers": {version: settings}}  # fmt: skip
    ours = LanguageModel(build(ModelConfig, config, "model")).initialise(0)
    with torch.no_grad():
        for i, p in enumerate(ours.parameters()):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i))
    return ours.eval()


def _tokens(length: int) -> Tensor:
    return torch.randint(0, VOCAB, (length,), generator=torch.Generator().manual_seed(length))


def _logits(model: LanguageModel, tokens: Tensor, cuts: list[int]) -> Tensor:
    """(n, vocab_size), read in parts where there are several."""
    state, parts = None if len(cuts) == 1 else model.new_state(1), []
    for part in tokens.split(cuts):
        hidden, state = model.hidden(part[None], state=state)
        parts.append(model.logits(hidden[0]))
    return torch.cat(parts)


def _package(version: Version) -> ModuleType:
    """rwkv.model, imported anew: it chooses a version by the environment, which it reads on import and later."""
    path = Path(next(iter(import_module("rwkv").__path__))) / "model.py"
    spec = importlib.util.spec_from_file_location(f"{version}_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _environment(switches: Mapping[str, bool]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in switches}
    os.environ.update({name: str(int(on)) for name, on in switches.items()})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
