"""`python -m validation context_split`: contexts divided over 2 and 4 processes against one, for every mixer,
encoding and pattern: hidden vectors of a prompt read in chunks and of tokens decoded one by one, of rows picked from
its state, and log-likelihoods by the engine that shares prefixes. Bytes are those of the state after the prompt. Then
a study that `evaluate.py` probes with one process and with 2 and 4 (records): the same records.
"""

from typing import Any

import numpy as np
import torch

from lcprobe.errors import ConfigError
from lcprobe.models.ranks.context import ContextRanks
from lcprobe.probing.engines.split.context import ContextSplit
from lcprobe.probing.inference.continuation import Continuer
from validation.context_parallel.processes import in_ranks
from validation.context_parallel.records import record_rows
from validation.context_parallel.table import subjects
from validation.invariances.checks import VOCAB
from validation.invariances.ours import built

TITLE = "contexts divided over processes while probing"
OPTIONS = ("ranks", "names")
GROUP = ("ranks", "model")
PROMPT = 60
EDGES = (0, 37, 58, 59, PROMPT, PROMPT + 1, PROMPT + 2, PROMPT + 5)
"""Borders of the passes: long and short chunks, single tokens."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """Rows by ranks and model. Options as of context_parallel."""
    wanted = [part for part in options.get("names", "").split(",") if part]
    chosen = [(n, s) for n, s in subjects() if not wanted or any(part in n for part in wanted)]
    sizes = [int(size) for size in options.get("ranks", "2,4").split(",")]
    rows = [] if wanted else record_rows(sizes)
    for size in sizes:
        rows += in_ranks(size, split_rows, chosen, seconds=3600.0)
    columns = dict.fromkeys(name for row in [*rows[::-1], *rows] for name in row)
    return [dict.fromkeys(columns) | row for row in rows]


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """The worst of each number, and what is refused."""
    refused = sorted({row["model"] for row in rows if row["refused"]})
    computed = [row for row in rows if row.get("hidden") is not None]
    worst = max((max(row["hidden"], row["log-likelihoods"]) for row in computed), default=0.0)
    found = [f"worst of {len(computed)} rows: {worst:.1e}", f"refused: {', '.join(refused) or 'none'}"]
    probed = [row for row in rows if row.get("records") is not None]
    if probed:
        n, differ = sum(row["records"] for row in probed), [row for row in probed if row["columns that differ"]]
        apart = max(row["log-likelihoods"] for row in probed)
        equal = "equal" if not differ else f"different in {len(differ)} of {len(probed)} models"
        found.append(f"{n} records of evaluate.py are {equal}, log-likelihoods within {apart:.1e}")
    return found


@torch.no_grad()
def split_rows(ranks: ContextRanks, chosen: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """The row of every model. Called by all ranks."""
    return [_row(ranks, name, settings) for name, settings in chosen]


def _row(ranks: ContextRanks, name: str, settings: dict[str, Any]) -> dict[str, Any]:
    model = built({**settings, "context_length": EDGES[-1]})
    row: dict[str, Any] = {"model": name, "ranks": ranks.size, "refused": "", "hidden": None, "log-likelihoods": None}
    try:
        split = ContextSplit(model, ranks)
    except ConfigError as error:
        return {**row, "refused": str(error), "bytes of a rank": None, "bytes of one process": None}
    tokens = torch.randint(2, VOCAB, (2, EDGES[-1]), generator=torch.Generator().manual_seed(1))
    own, state, apart, scale, sizes = model.new_state(2), split.new_state(2), 0.0, 0.0, (0, 0)
    for lo, hi in zip(EDGES, EDGES[1:], strict=False):
        want, own = model.hidden(tokens[:, lo:hi], state=own)
        assert own is not None
        found, state = split.hidden(tokens[:, lo:hi], state=state)
        apart, scale = max(apart, float((found - want).abs().max())), max(scale, float(want.abs().max()))
        if hi == PROMPT:
            sizes = (state.nbytes, own.nbytes)
            picked = torch.tensor([1, 0, 1])
            own, state, tokens = own.rows(picked), state.rows(picked), tokens[picked]
    return {
        **row,
        "hidden": apart / scale,
        "log-likelihoods": _likelihoods_apart(model, split),
        "bytes of a rank": sizes[0],
        "bytes of one process": sizes[1],
    }


def _likelihoods_apart(model: Any, split: Any) -> float:
    """Largest difference of a log-likelihood of two continuations of each of three contexts with a common prefix."""
    ids = np.random.default_rng(0).integers(2, VOCAB, (3, PROMPT))
    ids[:, :40] = ids[0, :40]
    pairs = [(context, more) for context in ids for more in ([3, 4, 5], [6])]
    found, want = (Continuer(one, "cpu", chunk=16, batch_tokens=256).likelihoods(pairs) for one in (split, model))
    return max(float(np.abs(a - b).max()) for (a, _), (b, _) in zip(found, want, strict=True))
