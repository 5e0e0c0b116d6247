"""Oracles: every positional encoding and change of one beside a peer's code and beside its equation, in float64 and float32.

Both sides read the same numbers. A comparison is a line in COMPARISONS; the tests hold every row of it to its tolerance.
"""

from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import torch

from lcprobe.errors import unknown_name
from validation.oracles import equations, peers
from validation.oracles.cases import Found

TITLE = "oracles: largest difference from peers and from equations"
OPTIONS = ("only",)
COMPARISONS: dict[str, tuple[str | None, Callable[[torch.dtype], Iterator[Found]]]] = {
    "encodings": (None, equations.encodings),
    "methods": (None, equations.methods),
    "frequencies": (None, equations.frequencies),
    "recurrent": (None, equations.recurrent),
    "transformers ropes": ("transformers", peers.transformers_ropes),
    "transformers frequencies": ("transformers", peers.transformers_frequencies),
    "transformers biases": ("transformers", peers.transformers_biases),
    "x-transformers": ("x-transformers", peers.x_transformers),
    "rotary-embedding-torch": ("rotary-embedding-torch", peers.rotary_embedding_torch),
    "PoPE-pytorch": ("PoPE-pytorch", peers.pope_pytorch),
    "flash-linear-attention": ("flash-linear-attention", peers.flash_linear_attention),
}
"""By name: the peer's package, None for equations, and what is compared in a dtype. Raises ImportError without the package."""


@torch.no_grad()
def rows_of(name: str) -> list[dict[str, Any]]:
    """One row a comparison and dtype. Raises ConfigError for an unknown name, ImportError without the peer."""
    if name not in COMPARISONS:
        raise unknown_name("only", name, COMPARISONS)
    package, compare = COMPARISONS[name]
    rows = []
    for dtype in (torch.float64, torch.float32):
        for found in compare(dtype):
            oracle = f"{package} {version(package)}" if package else "its equation"
            row = {
                "encoding or method": found.name,
                "oracle": oracle,
                "compared": found.what,
                "dtype": str(dtype).split(".")[1],
            }
            rows.append({**row, "max abs difference": found.difference, "tolerance": found.tolerance})
    return rows


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """All rows; where a peer is missing, one that says so. options: only (a comparison's name)."""
    rows = []
    for name in [options["only"]] if "only" in options else COMPARISONS:
        try:
            rows += rows_of(name)
        except ImportError as error:
            rows.append({"encoding or method": "-", "oracle": name, "compared": f"not compared: {error}"})
    return rows
