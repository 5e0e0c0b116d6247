"""Checkpoints of other projects, loaded by ours, against the code of these projects: logits of the same tokens.

Every checkpoint is read whole, in chunks with carried state, and token by token. A case is one line in the lists that
`cases` joins.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcprobe.models.checkpoints.export import export
from lcprobe.models.checkpoints.load import load_published, recognised
from lcprobe.models.language_model import LanguageModel
from validation.checkpoints import (
    conv_cache,
    fla_models,
    hybrid_models,
    mamba_ssm_models,
    rwkv_models,
    transformers_models,
)
from validation.checkpoints.cases import LENGTHS, VOCAB, Case, Logits, tokens_of

TITLE = "checkpoints: largest difference of logits from the peers' own code, float32"
OPTIONS = ("only", "mamba_ssm")
LIMIT = 1e-4
"""Largest absolute difference of logits of the order of 1 to 10."""
GROUP = ("format",)
MEASURED: tuple[str, ...] = ("whole", "chunks", "tokens", "largest logit")
FOUND = (*MEASURED, "exported")
"""Columns of numbers: differences read whole, in chunks and token by token; and of the peer itself with what export
writes of its model, where it reads files."""
CUTS = (1, 3, 40, 1, 7)
"""Lengths of the first chunks; the rest is one more."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per case; one with the reason where a peer is missing. options: only (a part of the case's name),
    mamba_ssm (a folder with the source of mamba-ssm)."""
    source, only = Path(options["mamba_ssm"]) if "mamba_ssm" in options else None, options.get("only", "")
    rows = [row_of(case, mamba_ssm=source) for case in cases(source) if only in case.name]
    return [*rows, {**conv_cache.row(source), "exported": None}] if only in conv_cache.NAME else rows


def cases(mamba_ssm: Path | None = None) -> list[Case]:
    """All cases. mamba_ssm: a folder with the source of mamba-ssm, which its own cases need."""
    others = (transformers_models, hybrid_models, fla_models, rwkv_models)
    return [*mamba_ssm_models.cases(mamba_ssm), *(case for module in others for case in module.CASES)]


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What the numbers are, and how many are above the limit."""
    compared = [row for row in rows if row["whole"] is not None]
    above = [
        row for row in compared if max(row["whole"], row["chunks"], row["tokens"], row["exported"] or 0.0) > LIMIT
    ]
    return [
        f"max |difference| over lengths {', '.join(map(str, LENGTHS))}; {len(compared)} of {len(rows)} compared, "
        f"{len(above)} above {LIMIT:g}"
    ]


def row_of(case: Case, lengths: Sequence[int] = LENGTHS, mamba_ssm: Path | None = None) -> dict[str, Any]:
    """Write, load and compare one checkpoint; export it, and compare what the peer makes of that."""
    row: dict[str, Any] = {"format": case.format, "architecture": case.architecture, "peer": case.peer}
    with tempfile.TemporaryDirectory() as name:
        folder, exported = Path(name) / "theirs", Path(name) / "ours"
        folder.mkdir()
        try:
            theirs = case.write(folder)
        except ImportError as error:
            return {**row, "parameters": None, **dict.fromkeys(FOUND), "note": f"not compared: {error}"}
        published = recognised(folder, case.settings)
        assert published.format.name == case.format
        ours = load_published(published)
        row["parameters"] = sum(p.numel() for p in ours.parameters())
        found = differences(ours, theirs, lengths)
        if case.peer in ("transformers", "mamba-ssm"):
            export(ours, {"type": case.format, **case.settings}, exported)
            back = (
                transformers_models.read(exported)
                if case.peer == "transformers"
                else mamba_ssm_models.read(exported, mamba_ssm)
            )
            found["exported"] = max(_difference(back, theirs, length) for length in lengths)
        return {**row, **found, "note": ""}


@torch.no_grad()
def _difference(one: Logits, other: Logits, length: int) -> float:
    tokens = tokens_of(length)
    return float((one(tokens) - other(tokens)).abs().max())


@torch.no_grad()
def differences(ours: LanguageModel, theirs: Logits, lengths: Sequence[int]) -> dict[str, float | None]:
    """The largest absolute differences, read whole, in chunks and token by token, and the largest logit."""
    found = dict.fromkeys(MEASURED, 0.0)
    for length in lengths:
        tokens = tokens_of(length)
        want = theirs(tokens)[..., :VOCAB].double()
        for name, cuts in {"whole": None, "chunks": CUTS, "tokens": (1,) * length}.items():
            found[name] = max(found[name], float((logits_of(ours, tokens, cuts) - want).abs().max()))
        found["largest logit"] = max(found["largest logit"], float(want.abs().max()))
    return {**dict.fromkeys(FOUND), **found}


def logits_of(model: LanguageModel, tokens: Tensor, cuts: tuple[int, ...] | None) -> Tensor:
    """Logits in float64, (batch, seqlen, VOCAB). cuts: lengths of the chunks that are read one after another."""
    state, parts, at = None if cuts is None else model.new_state(len(tokens)), [], 0
    ends = [tokens.shape[1]] if cuts is None else [sum(cuts[: i + 1]) for i in range(len(cuts))]
    for end in [*(end for end in ends if end < tokens.shape[1]), tokens.shape[1]]:
        hidden, state = model.hidden(tokens[:, at:end], state=state)
        parts.append(model.logits(hidden)[..., :VOCAB])
        at = end
    return torch.cat(parts, dim=1).double()
