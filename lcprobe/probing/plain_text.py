"""Measurements on plain held-out text: loss by position, the size of the state, and how far back predictions depend.

    loss             of every token of a window, averaged in bins of position of half an octave each; the training
                     length is an edge, so that no bin mixes positions below and above it
    state_rms        root mean square of the finite values of the state after so many tokens; not_finite_state counts
                     the others
    state_bytes      of the state of one sequence
    remembrance      total-variation distance between the predictions with and without the first t of T tokens:
                     1/2 sum |p(. | x[0:T]) - p(. | x[t:T])|  (Buitrago & Gu 2025, arXiv 2507.02782: EffRem_T(t))

A window is BOS and a piece of the held-out stream, which crosses the ends of documents, as the facts in the unit's
file state. Most documents are shorter than the longest windows; the higher loss after an end is spread over all
positions. Logits are computed for at most MAX_LOGIT_ROWS positions at a time.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from lcprobe_kernels.transfer import sent
from torch import Tensor

from lcprobe.lengths import MAX_TOKENS
from lcprobe.locks import Claim, ClaimLost, Process, require_kept
from lcprobe.probing.config import ContextProbe
from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.inference.oom import with_oom_backoff
from lcprobe.probing.inference.prefill import initial_state
from lcprobe.probing.inference.token_scores import score_tokens
from lcprobe.probing.sharing.work import ProbedCheckpoint
from lcprobe.probing.store import RecordStore, unit_id
from lcprobe.records import Record
from lcprobe.schema import plain
from lcprobe.seeds import Stream
from lcprobe.tasks.episode import SUITE
from lcprobe.tasks.text.haystack import Materials

log = logging.getLogger(__name__)
FIRST_EDGE = 8
"""The end of the first bin: the first tokens have too little context for bins of their own."""


@dataclass(frozen=True)
class TextWindow:
    """ids: (length,) int64, BOS included where the vocabulary has one (bos 1, else 0). start: its first token in the
    stream.
    """

    number: int
    start: int
    ids: np.ndarray
    bos: int


@dataclass(frozen=True)
class Points:
    """What is measured: edges of the bins of position, lengths and kept tokens of remembrance; all in tokens,
    ascending.
    """

    edges: tuple[int, ...]
    lengths: tuple[int, ...]
    kept: tuple[int, ...]


def points_of(probe: ContextProbe, context_length: int) -> Points:
    """Half octaves around the training length up to the longest length, and every length."""
    lengths = probe.tokens([context_length])
    octaves = [round(context_length * 2 ** (k / 2)) for k in range(-64, 65)]
    edges = {*(e for e in octaves if FIRST_EDGE <= e <= lengths[-1]), *lengths}
    return Points(tuple(sorted(edges)), tuple(lengths), tuple(sorted(set(probe.kept))))


def windows_of(materials: Materials, n: int, length: int) -> list[TextWindow]:
    """n windows, each at a random word of its n-th of the held-out stream: a pure function of its arguments."""
    stream, bos = materials.stream("corpus"), materials.tokenizer.bos_id
    first = np.array([] if bos is None else [bos], dtype=np.int64)
    windows = []
    for number, share in enumerate(Stream("context windows", SUITE).uniform(n).tolist()):
        start = stream.window(int((number + share) * len(stream) / n) % len(stream), 0)
        ids = np.concatenate([first, stream.take(start, length - len(first))])
        windows.append(TextWindow(number, start, ids, len(first)))
    return windows


def context_facts(
    probe: ContextProbe, context_length: int, materials: Materials, checkpoint: ProbedCheckpoint
) -> dict[str, Any]:
    """Everything that the measurements of a model depend on. Raises EpisodeError without held-out text."""
    return {
        **checkpoint.facts,
        "suite": SUITE,
        "context": plain(probe),
        "windows": "of the held-out stream, over the ends of documents",
        "context_length": context_length,
        "made_of": [materials.tokenizer.identity, materials.stream("corpus").digest],
    }


def run_context(
    probe: ContextProbe,
    context_length: int,
    materials: Materials,
    model: ProbedModel,
    checkpoint: ProbedCheckpoint,
    store: RecordStore,
    *,
    chunk: int,
    batch_tokens: int,
    device: torch.device | str,
) -> str:
    """Measure the windows that the store lacks, unless another process does. Returns the id of the unit. Raises
    EpisodeError without held-out text.
    """
    points = points_of(probe, context_length)
    facts = context_facts(probe, context_length, materials, checkpoint)
    unit = unit_id(facts)
    if store.has(unit):
        return unit
    claim = store.claim(unit)
    if isinstance(claim, Process):
        return unit
    windows = windows_of(materials, probe.n, points.edges[-1])
    try:
        records = _measured(windows, points, model, checkpoint, store, unit, claim, chunk, batch_tokens, device)
        order = sorted(records, key=lambda r: (r["window"], r["measure"], r["high"], r["low"]))
        if not store.has(unit):
            store.finish(unit, order, facts)
    except ClaimLost as error:
        log.warning("plain text for %s: %s", checkpoint.name, error)
    finally:
        claim.release()
    return unit


def _measured(
    windows: Sequence[TextWindow],
    points: Points,
    model: ProbedModel,
    checkpoint: ProbedCheckpoint,
    store: RecordStore,
    unit: str,
    claim: Claim,
    chunk: int,
    batch_tokens: int,
    device: torch.device | str,
) -> list[Record]:
    """Records of the windows; those in the journal are not measured again. Raises ClaimLost where another process has
    taken the unit over."""
    records = [record for batch in store.resume(unit) for record in batch]
    known = {record["window"] for record in records}
    waiting = [window for window in windows if window.number not in known]
    length = points.edges[-1]
    at_once = max(1, batch_tokens // length)
    identity = {
        "model": checkpoint.name,
        "checkpoint": checkpoint.digest,
        "step": checkpoint.step,
        "tokens": checkpoint.tokens,
    }
    for lo in range(0, len(waiting), at_once):
        batch = waiting[lo : lo + at_once]
        measured, _ = with_oom_backoff(
            lambda some: measure_windows(model, some, points, chunk, device), batch, length
        )
        new = [
            identity | {"window": window.number, "start": window.start} | row
            for window, rows in zip(batch, measured, strict=True)
            for row in rows or []  # a window that does not fit into memory is missing
        ]
        require_kept(claim)
        store.append(unit, new)
        records += new
    require_kept(claim)
    return records


@torch.inference_mode()
def measure_windows(
    model: ProbedModel, windows: Sequence[TextWindow], points: Points, chunk: int, device: torch.device | str
) -> list[list[dict[str, object]]]:
    """Rows of every window (all as long as the last edge) with measure, low, high, kept, value and count."""
    chunk = MAX_TOKENS if model.rereads else chunk
    ids = sent(torch.from_numpy(np.stack([w.ids for w in windows])), torch.device(device))
    n = len(windows)
    rows: list[list[dict[str, object]]] = [[] for _ in windows]

    def note(
        name: str, low: int, high: int, values: Sequence[float], counts: Sequence[int], kept: int | None = None
    ) -> None:
        for own, value, count in zip(rows, values, counts, strict=True):
            whole = value if np.isfinite(value) else None
            own.append({"measure": name, "low": low, "high": high, "kept": kept, "value": whole, "count": int(count)})

    state, at, ends, last = initial_state(model, n, points.edges[-1]), 0, {}, None
    for edge in points.edges:
        begin, losses = at, []
        while at < edge:
            stop = min(at + chunk, edge)
            hidden, state = model.hidden(ids[:, at:stop], state=state)
            from_before = hidden[:, :-1] if last is None else torch.cat([last[:, None], hidden[:, :-1]], dim=1)
            targets = ids[:, stop - from_before.shape[1] : stop]
            losses.append(-score_tokens(model, from_before, targets)[0].double())
            last, at = hidden[:, -1], stop
        loss, ends[edge] = torch.cat(losses, dim=1), last
        finite = loss.isfinite()
        low, high = max(begin, 1), edge - 1
        note("loss", low, high, (loss.where(finite, 0).sum(1) / finite.sum(1)).tolist(), finite.sum(1).tolist())
        note("not_finite_predictions", low, high, (~finite).sum(1).tolist(), [loss.shape[1]] * n)
        sums = model.state_sums(state, n)
        values, bad = sums.values, sums.bad
        rms = torch.where(
            values + bad > 0, (sums.squares / values.clamp_min(1)).sqrt(), torch.nan
        )  # an engine may show none
        note("state_rms", edge, edge, rms.tolist(), values.tolist())
        note("not_finite_state", edge, edge, bad.tolist(), (values + bad).tolist())
        note("state_bytes", edge, edge, [sums.size / n] * n, [1] * n)
    bos = windows[0].bos
    for length in points.lengths:
        for kept in points.kept:
            dropped = length - kept - bos  # BOS stays: the model was never trained without it
            if dropped < 1:
                continue
            short = torch.cat([ids[:, :bos], ids[:, length - kept : length]], dim=1)
            alone = _last(model, short, chunk, points.edges[-1])
            note("remembrance", dropped, length, _distance(model, ends[length], alone), [1] * n, kept)
    return rows


def _last(model: ProbedModel, ids: Tensor, chunk: int, length: int) -> Tensor:
    """(batch, seqlen) -> the hidden vector of the last token. length: declared, equal with and without the first
    tokens.
    """
    state, hidden = initial_state(model, len(ids), length), None
    for lo in range(0, ids.shape[1], chunk):
        hidden, state = model.hidden(ids[:, lo : lo + chunk], state=state)
    assert hidden is not None
    return hidden[:, -1]


def _distance(model: ProbedModel, first: Tensor, second: Tensor) -> list[float]:
    """Total variation between two predictions of each row: 0 equal .. 1 disjoint."""
    distances = []
    for a, b in zip(first, second, strict=True):  # a row at a time: a vocabulary may be large
        distances.append(float((model.logits(a).softmax(-1) - model.logits(b).softmax(-1)).abs().sum() / 2))
    return distances
