"""RWKV models of two blocks: prefill beside PyPI's `rwkv` with the same weights, training beside transformers'
Mamba2.

No package trains RWKV-6 or 7 on a CPU: `rwkv` is for inference, transformers' RWKV is version 4 and its backward
pass fails, flash-linear-attention's layers need a GPU. Mamba2 is the class nearest to them that trains; it gets twice
the blocks, so that parameters are about equal. One thread; CPU seconds, the least of several rounds in turn. Floor:
the FLOPs that `cost` counts, at the rate of float32 products of 1,024 x 1,024.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.parts import model_cost
from lcprobe.schema import build
from validation.oracles.rwkv import VERSIONS, Version, package_model

TITLE = "RWKV beside peers: tokens per CPU second at d_model 256, 2 blocks, 2,048 tokens"
OPTIONS = ("rounds",)
D_MODEL, N_LAYERS, SEQLEN, VOCAB = 256, 2, 2048, 512


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """Two rows per version. options: rounds (5)."""
    rounds, threads = int(options.get("rounds", 5)), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [row for version in VERSIONS for row in _rows(version, rounds)]
    finally:
        torch.set_num_threads(threads)


def _rows(version: Version, rounds: int) -> Iterator[dict[str, Any]]:
    d_ff = D_MODEL * 7 // 2 if version == "rwkv6" else D_MODEL * 4  # as released
    given = {"layout": f"{version}+mlp", "n_layers": N_LAYERS, "d_model": D_MODEL, "d_ff": d_ff, "vocab_size": VOCAB,
             "mlp": version, "norm": "layer", "embedding_norm": True, "tie_embeddings": False}  # fmt: skip
    ours = LanguageModel(build(ModelConfig, given, "model")).initialise(0)
    flops = model_cost(ours.config, SEQLEN).flops
    peers = {"training": ("transformers Mamba2", transformers_mamba2()), "prefill": ("rwkv", package(ours, version))}
    for what, (name, runs) in peers.items():
        peer = f"{name} {metadata.version(name.split()[0])}"
        with runs as theirs:
            step = _training(ours) if what == "training" else _prefill(ours)
            least = _least({"ours": step, peer: theirs, "products": _products()}, rounds)
        speed, peak = {run: SEQLEN / seconds for run, seconds in least.items()}, 2 * 1024**3 / least["products"]
        yield {
            "mixer": version,
            "what": what,
            "parameters": sum(p.numel() for p in ours.parameters()),
            "tokens/s": round(speed["ours"]),
            "share of floor": f"{speed['ours'] * flops * (3 if what == 'training' else 1) / peak:.0%}",
            "peer": peer,
            "peer's tokens/s": round(speed[peer]),
            "x peer": f"{speed['ours'] / speed[peer]:.2f}",
        }


def _least(runs: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The least CPU seconds of each; the first round warms up."""
    seconds = dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for name, run in runs.items():
            begin = time.process_time()
            run()
            if turn:
                seconds[name] = min(seconds[name], time.process_time() - begin)
    return seconds


def _products() -> Callable[[], object]:
    a = torch.randn(1024, 1024)
    return lambda: a @ a


def _tokens() -> Tensor:
    return torch.randint(0, VOCAB, (1, SEQLEN), generator=torch.Generator().manual_seed(0))


def _training(model: LanguageModel) -> Callable[[], None]:
    tokens = _tokens()
    weights = torch.ones(tokens.shape)

    def step() -> None:
        model.loss(tokens, weights)[0].backward()
        model.zero_grad()

    return step


def _prefill(model: LanguageModel) -> Callable[[], Tensor]:
    tokens = _tokens()

    @torch.inference_mode()
    def step() -> Tensor:
        return model.logits(model.hidden(tokens, state=model.new_state(1))[0][:, -1])

    return step


@contextmanager
def transformers_mamba2() -> Iterator[Callable[[], None]]:
    """Training of transformers' Mamba2, blocks of which have half as many parameters as ours with their MLP."""
    import transformers

    peer = transformers.Mamba2ForCausalLM(
        transformers.Mamba2Config(
            hidden_size=D_MODEL, num_hidden_layers=2 * N_LAYERS, num_heads=2 * D_MODEL // 64, head_dim=64,
            state_size=128, n_groups=1, expand=2, conv_kernel=4, chunk_size=64, vocab_size=VOCAB,
            tie_word_embeddings=True,
        )
    )  # fmt: skip
    tokens = _tokens()

    def step() -> None:
        peer(input_ids=tokens, labels=tokens).loss.backward()
        peer.zero_grad()

    yield step


@contextmanager
def package(model: LanguageModel, version: Version) -> Iterator[Callable[[], object]]:
    """Prefill of PyPI's `rwkv` with our weights, compiled by TorchScript, its default."""
    tokens = _tokens()[0].tolist()
    with package_model(model, version, jit=True) as peer:
        yield lambda: peer.forward(tokens, None)
