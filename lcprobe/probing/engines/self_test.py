"""The test of a transformers model at loading: do its cache and rows of it continue as one forward pass would?

Seeded random tokens, some tens of them, and as many as cross the boundaries in the config at which classes change
their path (windows, chunks of scans). Differences are relative to the largest logit. Sources of what goes wrong:
docs/explanation/invariances.md.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lcprobe.errors import CheckpointError, ConfigError, shorten
from lcprobe.models.checkpoints.files import is_finite
from lcprobe.probing.engines.transformers import TransformersModel

TOLERANCES = {torch.float32: 2e-4, torch.float64: 1e-9}
LOW_PRECISION = 5e-2
"""Largest difference allowed, relative to the largest logit; classes that are right are below 1e-5 in float32, those
that are wrong above 3e-3. In half precision, whose rounding hides smaller faults."""
WIDENED_BYTES = 16e9
"""Models up to this size in float32 are tested in it, whatever the dtype of their weights."""
ROWS, TOKENS, FIRST, STEPS = 3, 48, 17, 4
"""Rows and tokens of the test, of which the first are read at once and the last ones singly."""
BOUNDARIES = (
    "sliding_window", "attention_window_size", "attention_chunk_size", "chunk_size", "mamba_chunk_size", "block_size",
)  # fmt: skip
LONGEST_BOUNDARY = 4096
GROWING_ROPE = ("dynamic", "longrope")
"""Scalings of RoPE by the length of the whole call: keys in a cache keep the angles of a shorter one."""
WIDEST = 140
"""Characters of a class's error that a note has room for."""
log = logging.getLogger(__name__)


@torch.no_grad()  # tensors of inference mode would stay in the weights
def settle(model: TransformersModel, name: str) -> None:
    """Find the model's head, test its cache, and set it to read prefixes again where that fails; `note` has the
    measured differences. name: for the note. Raises ConfigError for a class that cannot read a text at all, and
    CheckpointError for logits that are not finite."""
    own = next((p.dtype for p in model.model.parameters() if p.is_floating_point()), torch.float32)
    try:
        logits = _full(model, _tokens(model, ROWS, TOKENS, seed=0))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a class raises
        given = f"{type(model.model).__name__} in {_name(own)}, which fails ({_line(error)})"
        raise ConfigError(name, given, "a model whose class runs here, or another precision") from None
    if not is_finite(logits):
        fault = f"{name}: {type(model.model).__name__} in {_name(own)}: logits with numbers that are not finite"
        raise CheckpointError(f"{fault}; allowed: weights as they were published, or another precision")
    with _widened(model):
        dtype = next((p.dtype for p in model.model.parameters() if p.is_floating_point()), torch.float32)
        tolerance = TOLERANCES.get(dtype, LOW_PRECISION)
        has_head = model.find_head(_tokens(model, ROWS, TOKENS, seed=0), tolerance)
        worst, fault = _trial(model, dtype, tolerance)
    if not fault and own != dtype:
        _, fault = _trial(model, own, LOW_PRECISION)
    kind = f"{name}: {type(model.model).__name__} of transformers"
    if fault:
        model.reread()
        model.note = f"{kind}: {fault}; so prefixes are read again in every call"
        prefix = _prefix_difference(model)
        if not prefix <= (tolerance if own == dtype else LOW_PRECISION):
            model.note += f"; a prefix alone and in a longer text differ by {_number(prefix)}, and so will scores"
    else:
        model.note = (
            f"{kind}: continues from its cache ({_number(worst)} off the full forward; {_limit(dtype, tolerance)})"
        )
    if not has_head:
        model.note += "; logits are made for every position, as its head was not found"
    model.tokens_read = 0
    log.info(model.note)


def _trial(model: TransformersModel, dtype: torch.dtype, tolerance: float) -> tuple[float, str]:
    """The largest difference, and what is wrong with the cache: nothing where the text is empty."""
    growing = _growing_rope(model.settings)
    if growing is not None:
        return float("inf"), f"angles of its RoPE, {growing}, depend on the length of the call"
    try:
        found = _worst(model)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a class raises
        return float("inf"), _line(error)
    bad = [f"{what}: {_number(d)} off" for what, d in found.items() if not d <= tolerance]
    return _largest(list(found.values())), f"{', '.join(bad)} ({_limit(dtype, tolerance)})" if bad else ""


def _limit(dtype: torch.dtype, tolerance: float) -> str:
    return f"allowed {tolerance:g} of the largest logit, {_name(dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _line(error: BaseException) -> str:
    return shorten(" ".join(str(error).split()), WIDEST) or type(error).__name__


def _worst(model: TransformersModel) -> dict[str, float]:
    """The largest difference of each check, over the lengths that are tested."""
    given = [model.settings.get(name) for name in BOUNDARIES]
    crossed = [n for n in given if isinstance(n, int) and TOKENS // 2 < n <= LONGEST_BOUNDARY]
    end = model.max_length
    lengths = [TOKENS] + ([max(crossed) + TOKENS // 2] if crossed else [])
    worst: dict[str, float] = {}
    for length in (n for n in lengths if end is None or n <= end):
        for what, difference in _differences(model, length).items():
            worst[what] = _largest([worst.get(what, 0.0), difference])
    return worst


def _differences(model: TransformersModel, length: int) -> dict[str, float]:
    """Check -> largest difference from full forward passes, relative to their largest logit; nan counts as one."""
    rows = ROWS if length == TOKENS else 1
    tokens = _tokens(model, rows, length, seed=1)
    full = _full(model, tokens)

    def off(start: int, hidden: Tensor, want: Tensor) -> float:
        want = want[:, start : start + hidden.shape[1]]
        return float((model.logits(hidden) - want).abs().max() / full.abs().max())

    first, last = FIRST, length - STEPS
    hidden, after = model.hidden(tokens[:, :first], state=model.new_state(rows))
    prompt = off(0, hidden, full)
    steps, state = [], after
    for t in range(first, first + STEPS):
        hidden, state = model.hidden(tokens[:, t : t + 1], state=state)
        steps.append(off(t, hidden, full))
    hidden, state = model.hidden(tokens[:, first:last], state=after)  # from the same state: it must be as it was
    chunk = [off(first, hidden, full)]
    for t in range(last, length):
        hidden, state = model.hidden(tokens[:, t : t + 1], state=state)
        chunk.append(off(t, hidden, full))
    index = torch.tensor([rows - 1, 0, rows - 1, rows // 2], device=tokens.device)
    forked = torch.cat([tokens[index, :first], _tokens(model, len(index), STEPS, seed=2)], dim=1)
    want, state, forks = _full(model, forked), after.rows(index), []
    for t in range(first, first + STEPS):
        hidden, state = model.hidden(forked[:, t : t + 1], state=state)
        forks.append(off(t, hidden, want))
    hidden, _ = model.hidden(tokens[:, first : first + 1], state=after)
    forks.append(off(first, hidden, full))
    return {
        "a prompt read with a cache": prompt,
        "single tokens after a cache": _largest(steps),
        "a chunk after a cache": _largest(chunk),
        "copied rows of a cache": _largest(forks),
    }


def _full(model: TransformersModel, tokens: Tensor) -> Tensor:
    return model.logits(model.read(tokens, None, 0, use_cache=False)[0])


def _prefix_difference(model: TransformersModel) -> float:
    """How far logits of a prefix differ alone and in a longer sequence."""
    tokens = _tokens(model, ROWS, TOKENS, seed=3)
    full = _full(model, tokens)
    return float((_full(model, tokens[:, :FIRST]) - full[:, :FIRST]).abs().max() / full.abs().max())


def _tokens(model: TransformersModel, rows: int, length: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, model.vocab_size, (rows, length), generator=generator).to(model.device)


def _largest(values: list[float]) -> float:
    """The largest value; nan if one is."""
    return max(values) if all(v == v for v in values) else float("nan")


def _number(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _growing_rope(settings: dict[str, Any]) -> str | None:
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    sets = [rope, *(value for value in rope.values() if isinstance(value, dict))]  # one for each type of layer
    kinds = [one.get("rope_type", one.get("type")) for one in sets]
    return next((kind for kind in kinds if kind in GROWING_ROPE), None)


@contextmanager
def _widened(model: TransformersModel) -> Iterator[None]:
    """Parameters in float32 inside the block, where they fit: half precision hides small faults. Widening and back is
    exact."""
    before = {p: p.dtype for p in model.model.parameters() if p.is_floating_point()}
    if sum(4 * p.numel() for p in before) <= WIDENED_BYTES and torch.float64 not in before.values():
        try:
            for p in before:
                p.data = p.data.float()
        except torch.OutOfMemoryError:
            _restore(before)
    try:
        yield
    finally:
        _restore(before)


def _restore(before: dict[nn.Parameter, torch.dtype]) -> None:
    for p, dtype in before.items():
        p.data = p.data.to(dtype)
