"""Oracles: positional encodings, extension methods and mixers against peers' code and against their equations, in
float64 and float32.

Both sides get the same inputs. A comparison is a line in COMPARISONS; a test checks every row of it against its
tolerance.
"""

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import torch

from lcprobe.errors import unknown_name
from validation.oracles import (
    delta_rule,
    equations,
    griffin,
    linear_attention,
    mamba,
    mixers,
    peers,
    rwkv,
    transformer,
    xlstm,
)
from validation.oracles.cases import Comparison
from validation.oracles.missing import missing

TITLE = "oracles: largest difference from peers and from equations"
OPTIONS = ("only",)
COMPARISONS: dict[str, tuple[str | None, Callable[[torch.dtype], Iterator[Comparison]]]] = {
    "encodings": (None, equations.encodings),
    "methods": (None, equations.methods),
    "frequencies": (None, equations.frequencies),
    "recurrent": (None, equations.recurrent),
    "mixers": (None, mixers.recurrences),
    "transformers ropes": ("transformers", peers.transformers_ropes),
    "transformers frequencies": ("transformers", peers.transformers_frequencies),
    "transformers biases": ("transformers", peers.transformers_biases),
    "x-transformers": ("x-transformers", peers.x_transformers),
    "rotary-embedding-torch": ("rotary-embedding-torch", peers.rotary_embedding_torch),
    "PoPE-pytorch": ("PoPE-pytorch", peers.pope_pytorch),
    "transformers mamba": ("transformers", mamba.transformers_mamba),
    "transformers mamba2": ("transformers", mamba.transformers_mamba2),
    "transformers llama": ("transformers", transformer.transformers_llama),
    "transformers qwen3_next": ("transformers", delta_rule.qwen3_next),
    "transformers kimi_linear": ("transformers", delta_rule.kimi_linear),
    "transformers minimax": ("transformers", linear_attention.minimax),
    "transformers recurrent_gemma": ("transformers", griffin.transformers_model),
    "transformers xlstm": ("transformers", xlstm.transformers_xlstm),
    "recurrentgemma": ("recurrentgemma", griffin.google_model),
    "rwkv": ("rwkv", rwkv.models),
    "flash-linear-attention layers": ("flash-linear-attention", delta_rule.fla_layers),
    "flash-linear-attention": ("flash-linear-attention", peers.flash_linear_attention),
    "flash-linear-attention GLA": ("flash-linear-attention", linear_attention.fla_gla),
}
"""By name: the peer's package, None for equations, and the comparisons in a dtype, which raise ImportError without
the package."""


@torch.no_grad()
def comparison_rows(name: str) -> list[dict[str, Any]]:
    """One row per comparison and dtype. Raises ConfigError for an unknown name, ImportError without the peer."""
    if name not in COMPARISONS:
        raise unknown_name("only", name, COMPARISONS)
    package, compare = COMPARISONS[name]
    rows = []
    for dtype in (torch.float64, torch.float32):
        for one in compare(dtype):
            oracle = f"{package} {version(package)}" if package else "its equation"
            row = {
                "what": one.name,
                "oracle": oracle,
                "compared": one.what,
                "dtype": str(dtype).split(".")[1],
            }
            rows.append({**row, "max abs difference": one.difference, "tolerance": one.tolerance})
    return rows


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """All rows; one with the reason where a peer is missing, and one with what to write for everything registered
    without oracle. options: only (a comparison's name)."""
    rows = [{"what": name, "oracle": "none", "compared": f"write {what}"} for name, what in missing().items()]
    for name in [options["only"]] if "only" in options else COMPARISONS:
        try:
            rows += comparison_rows(name)
        except ImportError as error:
            rows.append({"what": "-", "oracle": name, "compared": f"not compared: {error}"})
    return rows
