"""Memory that training takes on each device, and whether it fits: for `--plan`.

    held         weights, AdamW's two moments, ddp's buckets, and what fsdp2 has whole throughout a step
    gradients    there before a forward pass only with accumulation, else they take the place of activations
    gathered     blocks that fsdp2 has whole for a moment
    kept         what blocks keep for the backward pass, counted on the meta device (kept)
    received     with context_parallel, keys, values and states of the other devices of a sequence
    loss         the fused cross-entropy: gradients of hidden states and of the head, a chunk of logits

The peak is that of the moment that takes most: in the loss, at the beginning of the backward pass, in the first block
that it goes through, or at its end. Checked against what is measured by `python -m validation memory`. Not counted:
the CUDA context and libraries (about 1 GB), buffers of NCCL, gaps of the allocator, and what torch.compile saves.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers.contract import Mixer
from lcprobe.models.parts import ModelCost, padded_vocab, parts_of
from lcprobe.studies.planning.memory.kept import Kept, KeptUnknown, kept_by_blocks
from lcprobe.studies.planning.plan import PlannedRun, StudyPlan
from lcprobe.studies.runtime import machine_memory
from lcprobe.training.config import TrainConfig
from lcprobe.training.strategies.checks import shared_layers

GPU_MEMORY = {"a100": 80e9, "h100": 80e9, "h200": 141e9}
"""Memory in bytes."""
LOGIT_BYTES, LOGITS_OF_CPU, ROWS_OF_CPU = 1 << 31, 1 << 25, 512
"""Limits of a chunk of logits: bytes on a GPU; numbers and rows on a CPU (lcprobe_kernels.linear_cross_entropy)."""
GATHERED = 2
"""Blocks that fsdp2 has whole at a time: the one that is computed, and what is gathered of the next."""
FLOATS_UNCOUNTED = 20
"""Activations of a block that cannot be counted, in widths of the model a matrix of d_model x 4 d_model."""


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. held: all the time, gradients included; total: at the peak."""

    held: float
    total: float


def memory_of(run: PlannedRun, changes: Mapping[str, Any] | None = None) -> Memory:
    """What a run takes on each device of the plan's machine. changes: of its settings of training."""
    train = replace(run.config.train, **(changes or {}))
    gpu = run.config.study.plan_for != "here" or gpu_here()
    documents = run.config.data.documents == "isolated"
    return estimated(run.matched.config, run.matched.cost, train, documents=documents, gpu=gpu)


def estimated(config: ModelConfig, cost: ModelCost, train: TrainConfig, *, documents: bool, gpu: bool) -> Memory:
    """What a model takes in training. documents: whether rows have several; gpu: on a GPU, by its kernels."""
    seqlen, width, vocab = train.context_length, config.d_model or 1, padded_vocab(config)
    dtype = torch.bfloat16 if train.precision == "bf16" else torch.float32
    rows = train.rows / train.parts / train.context_parallel
    tokens = rows * seqlen
    whole = max(1, train.rows // train.parts)  # each is divided by context_parallel
    kept = _kept(config, cost, (whole, seqlen), dtype, documents, gpu)
    shared = _shared_parameters(config, train.tensor_parallel)
    share = _share_of_activations(train, shared / max(1, cost.blocks.params)) / train.context_parallel
    parts = _of_parameters(config, cost, train, shared)
    of_head = 4.0 * vocab * width
    there = parts.held + (parts.gradients if train.accumulate > 1 else 0.0)
    if dtype != torch.float32:  # autocast keeps narrow copies of matrices until the backward pass is over
        there += 2.0 * parts.copied
    received, largest = received_of(config, train, dtype)
    if train.recompute:
        activations, block = kept.inputs * share, (kept.largest + kept.working) * share
        block += 3 * largest  # what is received again, and its gradients
    else:
        activations, block = kept.blocks * share + received, kept.working * share
        block += 2 * largest
    activations += 4.0 * tokens * width  # of the final norm
    hidden, narrow = tokens * width * dtype.itemsize, dtype != torch.float32
    chunk = _logits(tokens, vocab, dtype, gpu)
    copies = hidden + (of_head / 2 if narrow else 0.0) + (hidden if gpu else 0.0)
    in_loss = there + activations + 2 * hidden + of_head + copies + chunk
    after_loss = there + activations + 2 * hidden + 2 * of_head
    in_block = there + activations + hidden + of_head + block + parts.gathered
    at_end = parts.held + parts.gradients + 2 * of_head + parts.whole
    return Memory(parts.held + parts.gradients, max(in_loss, after_loss, in_block, at_end))


def _kept(
    config: ModelConfig, cost: ModelCost, shape: tuple[int, int], dtype: torch.dtype, documents: bool, gpu: bool
) -> Kept:
    """What blocks keep of rows and tokens of this shape; by a rule of thumb where they cannot be counted."""
    rows, seqlen = shape
    try:
        return kept_by_blocks(config, seqlen, dtype, documents, "triton" if gpu else "torch", rows)
    except KeptUnknown:
        width = config.d_model or 1
        n_blocks = len(parts_of(config).blocks)
        floats = FLOATS_UNCOUNTED * max(1, cost.blocks.params // (4 * width * width))
        total = floats * rows * seqlen * width * dtype.itemsize
        largest = total // n_blocks
        return Kept(total, largest, largest // 2, n_blocks * rows * seqlen * width * (dtype.itemsize + 4))


def received_of(config: ModelConfig, train: TrainConfig, dtype: torch.dtype) -> tuple[float, float]:
    """Bytes that the last of the devices of a sequence gets of the others and keeps for the backward pass: keys and
    values of all earlier tokens that its queries see, and states; of all layers, and of the one with the most."""
    n, length = train.context_parallel, train.context_length
    if n == 1:
        return 0.0, 0.0
    rows, width, earlier = train.rows / train.parts, config.d_model or 1, length - length // n
    each = []
    for layer in parts_of(config).layers:
        cost = layer.mixer.cost(layer.config, width, earlier)
        group = 1 if layer.mixer.tensor_splits is Mixer.tensor_splits else train.tensor_parallel
        each.append(rows * (cost.kv_bytes * dtype.itemsize / 4 + (n - 1) * cost.state_bytes) / group)
    return sum(each), max(each)


@dataclass(frozen=True)
class _OfParameters:
    """copied: parameters of blocks of which autocast keeps narrow copies. In bytes, held: weights, moments, and what
    else is there all the time; gradients: of a step, besides; gathered: blocks that a backward pass is in; whole: the
    embedding's gradient, where those that stay are other ones."""

    copied: float
    held: float
    gradients: float
    gathered: float = 0.0
    whole: float = 0.0


_shared: dict[tuple[str, int], int] = {}
"""What was counted, by the model's settings."""


def _shared_parameters(config: ModelConfig, n: int) -> int:
    """Parameters of blocks that n processes of a tensor group divide; all of them have the others. Raises ConfigError
    where heads or widths do not divide."""
    if n == 1:
        return 0
    key = repr(config), n
    if key not in _shared:
        with torch.device("meta"):
            layers = shared_layers(LanguageModel(config), n)
        _shared[key] = sum(layer.get_parameter(name).numel() for _, layer, splits in layers for name in splits)
    return _shared[key]


def _of_parameters(config: ModelConfig, cost: ModelCost, train: TrainConfig, shared: int) -> _OfParameters:
    """What a device has because of its parameters.

    Gradients of ddp are views of its buckets, which are there all the time; of several forward passes those before
    the last are none. fsdp2 divides all among the replicas, of which each gathers the embedding for the whole of a
    step, and a block at a time; tensor parallelism divides the layers that can be shared.
    """
    of_blocks = cost.blocks.params - shared * (1 - 1 / train.tensor_parallel)
    others = float(cost.params - cost.blocks.params)
    own = of_blocks + others
    if train.divided_as == "ddp":
        return _OfParameters(of_blocks, 16.0 * own, 4.0 * own if train.accumulate > 1 else 0.0, whole=4.0 * others)
    if train.divided_as == "fsdp2":
        replicas, block = train.devices // train.tensor_parallel, of_blocks / len(parts_of(config).blocks)
        held, gathered = 12.0 * own / replicas + 4.0 * others, GATHERED * block
        bytes_ = 2.0 if train.precision == "bf16" else 4.0
        return _OfParameters(0.0, held, 4.0 * own / replicas, bytes_ * gathered, 4.0 * others)
    return _OfParameters(of_blocks, 12.0 * own, 4.0 * own)


def _share_of_activations(train: TrainConfig, shared: float) -> float:
    """Of a tensor group's activations that each device has: the stream, what norms read, and B and C of Mamba2, all
    have; that is a fifth of them with attention, and two fifths with Mamba2. shared: the part of the blocks'
    parameters that is divided; layers that cannot be shared have all of theirs in each process."""
    return 1 - 0.7 * shared * (1 - 1 / train.tensor_parallel)


def _logits(tokens: float, vocab: int, dtype: torch.dtype, gpu: bool) -> float:
    """Bytes of a chunk of logits."""
    if gpu:
        return min(tokens * vocab * dtype.itemsize, LOGIT_BYTES)
    rows = max(1, min(tokens, ROWS_OF_CPU, LOGITS_OF_CPU // vocab))
    return rows * vocab * (4.0 if dtype == torch.float32 else 4.0 + 2 * dtype.itemsize)


def memory_notes(plan: StudyPlan) -> list[str]:
    """A line about models that do not fit into the memory of the plan's machine, with a remedy; none where all
    fit."""
    machine = plan.config.study.plan_for
    available = memory_here() if machine == "here" else GPU_MEMORY[machine]
    models = {run.group: run for run in reversed(plan.runs)}
    needs = {group: memory_of(run).total for group, run in models.items()}
    large = [group for group, bytes_ in needs.items() if available is not None and bytes_ > available]
    if not large or available is None:
        return []
    run = models[max(large, key=lambda group: needs[group])]
    fixed = memory_of(run).held
    named = ", ".join(large[::-1][:3]) + (f" and {len(large) - 3} more" if len(large) > 3 else "")
    remedy = memory_remedy(run, available)
    where = "this machine" if machine == "here" else machine.upper()
    return [
        f"too large for {where} ({available / 1e9:.0f} GB per device): {named}, about "
        f"{needs[run.group] / 1e9:.0f} GB; what it holds all the time is {fixed / 1e9:.0f} GB of it; {remedy}"
    ]


def memory_remedy(run: PlannedRun, available: float) -> str:
    """What to change, in words: the first of `_changes` that fits."""
    for changes, cost in _changes(run.config.train):
        if memory_of(run, changes).total <= available:
            settings = " ".join(f"train.{name}={str(value).lower()}" for name, value in changes.items())
            return f"{settings} would fit ({cost})"
    train = run.config.train
    if train.divided_as in ("ddp", "one") and memory_of(run).held > available:
        return "every device has a full copy: train.strategy=fsdp2 on several train.devices divides it"
    if memory_of(run).held > available:
        return "use more train.devices, or larger ones"
    return "use more train.devices with fewer rows each, a shorter train.context_length, or a larger device"


def _changes(train: TrainConfig) -> Iterator[tuple[dict[str, Any], str]]:
    """Settings that take less memory, from the cheapest on, and what they cost."""
    more = [a for a in divisors(train.rows // train.data_parallel) if a > train.accumulate]
    yield from (({"accumulate": a}, "activations of one forward pass take the rest") for a in more)
    if not train.recompute:
        yield {"recompute": True}, "a third more compute"
        yield from (({"recompute": True, "accumulate": a}, "a third more compute") for a in more)
    if train.divided_as == "ddp":
        yield {"strategy": "fsdp2"}, "weights are gathered for each block"
        yield {"strategy": "fsdp2", "recompute": True}, "weights are gathered for each block, a third more compute"


def divisors(n: int) -> list[int]:
    """Of a number, ascending."""
    small = [a for a in range(1, math.isqrt(n) + 1) if n % a == 0]
    return sorted({*small, *(n // a for a in small)})


def memory_here() -> float | None:
    """Memory in bytes of the GPU, or of the machine where there is none; None where it is unknown."""
    if torch.cuda.is_available():
        return float(torch.cuda.get_device_properties(0).total_memory)
    return machine_memory()


def gpu_here() -> bool:
    """Whether this machine has a GPU."""
    return torch.cuda.is_available()
