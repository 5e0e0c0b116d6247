"""Training throughput of the three architectures at d_model 64 and 512, beside transformers' Mamba2 and Llama of the
same size.

Every model runs loss, backward and AdamW on the same batches, in several interleaved rounds; the median is reported.
The share of peak is model FLOPs (3 x forward, head included) over this machine's float32 matrix products in the same
run.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lcprobe.models.config import MatchConfig, ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.matching import match
from lcprobe.schema import build
from lcprobe.studies.planning.costs import measured_peak

TITLE = "training throughput, tokens per second"
OPTIONS = ("rounds",)
VOCAB = 4096
MODEL_SIZES: list[dict[str, Any]] = [
    {"d_model": 64, "layers": 2, "batch": 8, "seqlen": 128, "head_dim": 32, "d_state": 64},
    {"d_model": 512, "layers": 4, "batch": 2, "seqlen": 1024, "head_dim": 64, "d_state": 128},
]


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per model and size. options: rounds."""
    rounds, rows = int(options.get("rounds", 7)), []
    for case in MODEL_SIZES:
        rows += _case(case, rounds)
    return rows


def _case(case: dict[str, Any], rounds: int) -> list[dict[str, Any]]:
    d, n, hd = case["d_model"], case["layers"], case["head_dim"]
    mixers = {"attention": {"head_dim": hd, "d_conv": 4}, "mamba2": {"head_dim": hd, "d_state": case["d_state"]}}
    half = n // 2
    layouts = {
        "transformerpp": f"attention+mlp x {n}",
        "mamba2": f"mamba2 x {n}",
        "hybrid": f"attention+mlp x {half}, mamba2 x {half}",
    }
    models = {
        name: build(ModelConfig, {"layout": layout, "d_model": d, "vocab_size": VOCAB, "mixers": mixers}, "model")
        for name, layout in layouts.items()
    }
    seqlen: int = case["seqlen"]
    matched = match(models, build(MatchConfig, {"budget": "mamba2"}, "match"), dict.fromkeys(models, seqlen))
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, VOCAB, (case["batch"], case["seqlen"]), generator=generator)
    steps: dict[str, tuple[Callable[[], Tensor], torch.nn.Module]] = {}
    for name, m in matched.items():
        model = LanguageModel(m.config).initialise(0)
        weights = torch.ones(tokens.shape)
        steps[f"lcprobe {name}"] = (lambda model=model, weights=weights: model.loss(tokens, weights)[0]), model
    for name, peer in _peers(case, matched["transformerpp"].config.d_ff or 0).items():
        steps[f"transformers {name}"] = (lambda peer=peer: peer(input_ids=tokens, labels=tokens).loss), peer
    optimizers = {
        name: torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True) for name, (_, model) in steps.items()
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    peaks = [measured_peak()]
    for turn in range(rounds + 1):
        for name, (loss, model) in steps.items():
            begin = time.perf_counter()
            loss().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizers[name].step()
            optimizers[name].zero_grad()
            if turn:  # the first round warms up
                times[name].append(time.perf_counter() - begin)
        peaks.append(measured_peak())
    peak = max(peaks)
    flops = {f"lcprobe {name}": 3 * m.cost.flops for name, m in matched.items()}
    flops["transformers Mamba2"], flops["transformers Llama"] = (
        flops["lcprobe mamba2"],
        flops["lcprobe transformerpp"],
    )
    rival = {"lcprobe mamba2": "transformers Mamba2", "lcprobe transformerpp": "transformers Llama"}
    speed = {name: tokens.numel() / statistics.median(t) for name, t in times.items()}
    return [
        {
            "model": name,
            "d_model": d,
            "layers": n,
            "batch x seqlen": f"{case['batch']} x {case['seqlen']}",
            "parameters": sum(p.numel() for p in model.parameters()),
            "tokens/s": round(speed[name]),
            "share of fp32 peak": f"{speed[name] * flops[name] / peak:.1%}",
            "peak GFLOP/s": round(peak / 1e9),
            "x transformers": f"{speed[name] / speed[rival[name]]:.2f}" if name in rival else "",
        }
        for name, (_, model) in steps.items()
    ]


def _peers(case: dict[str, Any], d_ff: int) -> dict[str, Any]:
    """transformers' models of the same size, with random weights."""
    import transformers

    d, n, hd = case["d_model"], case["layers"], case["head_dim"]
    mamba2 = transformers.Mamba2Config(
        hidden_size=d, num_hidden_layers=n, num_heads=2 * d // hd, head_dim=hd, state_size=case["d_state"],
        n_groups=1,
        expand=2, conv_kernel=4, chunk_size=64, vocab_size=VOCAB, tie_word_embeddings=True,
    )  # fmt: skip
    llama = transformers.LlamaConfig(
        hidden_size=d, num_hidden_layers=n, num_attention_heads=d // hd, head_dim=hd, intermediate_size=d_ff,
        vocab_size=VOCAB, tie_word_embeddings=True,
    )  # fmt: skip
    return {"Mamba2": transformers.Mamba2ForCausalLM(mamba2), "Llama": transformers.LlamaForCausalLM(llama)}
