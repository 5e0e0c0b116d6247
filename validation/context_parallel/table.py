"""`python -m validation context_parallel`: sequences divided over 2 and 4 processes against one process, for every
mixer, encoding and pattern.

Differences are divided by the largest number of the whole computation: of hidden vectors, the loss, and of the
gradients of all parameters. The worst of whole rows and of packed documents, most of which cross the borders of
chunks (float32: of these). Weights: after 20 steps of AdamW, of the largest weight. Bytes: what the first rank sends
forward, for one row of float32 at two lengths, which is what grows with the length.
"""

from collections.abc import Iterator
from typing import Any

import torch

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.schema import build
from validation.context_parallel.compare import SEQLEN, apart, batch, trained_apart
from validation.context_parallel.processes import in_ranks
from validation.invariances.ours import built, mixer_model, models
from validation.oracles.mixers import D_MODEL

TITLE = "sequences divided over processes"
OPTIONS = ("ranks", "names")
GROUP = ("ranks", "model")
LONGER = 4 * SEQLEN
STEPS = 20
ENCODINGS = "attention, "
"""What the names of rows of encodings begin with."""
PATTERN = "configs/model/hybrid-1to7.yaml"
"""Trained for 20 steps, as are the first row of each mixer and the hybrids below."""
HYBRIDS: dict[str, dict[str, Any]] = {
    "parallel(mamba2, attention), parallel(attention, rwkv7), recomputed": {
        "layout": "parallel(mamba2, attention)+mlp, parallel(attention, rwkv7), attention",
        "mixers": {
            "attention": {"head_dim": 8, "n_kv_heads": 1, "window": 30},
            "mamba2": {"head_dim": 8, "d_state": 4, "expand": 1},
            "rwkv7": {"head_dim": 8},
        },
    },
}
"""Models beside the mixers and the patterns of configs/model/; blocks are computed again in the backward pass."""


def subjects() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and ModelConfig, as written in a config, of every row."""
    yield from models()
    for name, settings in HYBRIDS.items():
        base = mixer_model("attention", {"head_dim": 8}, D_MODEL)
        yield name, {**base, **settings}
    for name in POSITIONAL:
        positional = {"type": name} | ({"max_length": LONGER} if name == "learned" else {})
        window = {"window": 9} if name in ("rope", "alibi", "fox") else {}
        mixer = mixer_model("attention", {"head_dim": 6, "n_heads": 4, "n_kv_heads": 2, **window}, D_MODEL)
        yield f"{ENCODINGS}{name}{', window 9' if window else ''}", {**mixer, "positional": positional}


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """Rows by ranks and model. Options: ranks, such as 2,4; names: parts of the names of rows, as in mamba2,rope."""
    wanted = [part for part in options.get("names", "").split(",") if part]
    chosen = [(n, s) for n, s in subjects() if not wanted or any(part in n for part in wanted)]
    paths = [(name, settings, _path(settings)) for name, settings in chosen]
    first = {name.split(" ")[0]: name for name, _ in reversed(list(models()))}
    trained, rows = {PATTERN, *HYBRIDS, *(first[name] for name in MIXERS)}, []
    for size in map(int, options.get("ranks", "2,4").split(",")):
        rows += in_ranks(size, _rows, paths, trained, seconds=3600.0)
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """The worst of each number."""
    names = ("float64", "float32", "weights, 20 steps")
    worst = {name: max((row[name] for row in rows if row[name] is not None), default=0.0) for name in names}
    return [
        f"worst of {len(rows)} rows: " + ", ".join(f"{name} {value:.1e}" for name, value in worst.items()),
        "float32 is the distance of two float32 computations; weights are float64",
        "state passing: messages are the state, and ranks wait for each other in turn; exchange: none waits",
    ]


def _rows(
    ranks: ContextRanks, chosen: list[tuple[str, dict[str, Any], str]], trained: set[str]
) -> list[dict[str, Any]]:
    made = (_row(ranks, name, settings, path, name in trained) for name, settings, path in chosen)
    return [row for row in made if row is not None]


def _row(ranks: ContextRanks, name: str, settings: dict[str, Any], path: str, train: bool) -> dict[str, Any] | None:
    again = name in HYBRIDS
    cases = {torch.float64: (False, True), torch.float32: (True,)}
    found = {
        dtype: [apart(ranks, settings, packed, dtype, again) for packed in each] for dtype, each in cases.items()
    }
    trained = trained_apart(ranks, settings, STEPS, torch.float64) if train else None
    sent = [_sent(ranks, settings, n) for n in (SEQLEN, LONGER)]
    if ranks.rank:
        return None
    worst = {dtype: max(one.worst for one in each if one is not None) for dtype, each in found.items()}
    return {
        "model": name,
        "path": path,
        "ranks": ranks.size,
        "float64": worst[torch.float64],
        "float32": worst[torch.float32],
        "weights, 20 steps": trained,
        f"bytes at {SEQLEN}": sent[0],
        f"bytes at {LONGER}": sent[1],
    }


def _path(settings: dict[str, Any]) -> str:
    with torch.device("meta"):
        model = LanguageModel(build(ModelConfig, settings, "model"))
    return " + ".join(sorted({"exchange" if mixer.exchanges else "state passing" for mixer in model.mixers()}))


@torch.no_grad()
def _sent(ranks: ContextRanks, settings: dict[str, Any], seqlen: int) -> int:
    """Bytes that this rank sends for one row."""
    model = built({**settings, "context_length": seqlen}, torch.float32)
    ranks.sent.clear()
    model.hidden(batch(False, seqlen)[0][:1], ranks=ranks)
    return sum(ranks.sent.values())
