"""Hours and memory of probing: what `evaluate.py --plan` prints, from closed forms; nothing is loaded.

FLOPs     of a prompt of n tokens, of which the last m are read for it: F(n) - F(n - m), with F(n) = n times the
          mean per token at length n, so that the growth of attention counts; without the head, which is asked for
          at answers only
hours     FLOPs / (peak x UTILISATION); greedy tokens take at least the time to read the weights for each
memory    weights; states of all rows, of those after the next chunk or of the copies for candidates and what
          continues them (one prompt with a large state: its own and one that continues it), and of one prefix that
          waits where prompts share some; and what one chunk needs in one layer; where layers are split over GPUs,
          each has its share of weights and states; where processes share contexts (probe.context_parallel), each
          has all weights and states of fixed size, its share of keys and values and of a chunk, and of one layer the
          queries, keys, values and outputs of the whole chunk
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lcprobe.analysis.inputs import Value
from lcprobe.models.config import ModelConfig
from lcprobe.models.parts import ModelCost
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.inference.token_scores import MAX_LOGIT_ROWS
from lcprobe.probing.scoring import COPIED_BYTES
from lcprobe.studies.planning.costs import GPU_PEAK, measured_peak
from lcprobe.studies.planning.memory.estimate import GPU_MEMORY, gpu_here, memory_here

GPU_PEAK_32 = {"a100": 19.5e12, "h100": 67e12, "h200": 67e12}
"""Peak FLOP/s in float32 without tensor cores, from the data sheets."""
GPU_BANDWIDTH = {"a100": 2.04e12, "h100": 3.35e12, "h200": 4.8e12}
"""Bytes of memory per second, from the data sheets."""
UTILISATION = 0.4
"""Of the peak, while prompts are read in chunks."""
USABLE = 0.9
"""Of a GPU's memory; the rest is for fragments and workspaces."""
MEMORY_CELLS = {"weights GB", "prompts at once", "states GB", "GPUs", "GB each", "GPU hours", "GB", "fits"}
"""Cells that tell of a machine with weights and states."""
SHARES = (2, 4, 8, 16, 32, 64)
"""Numbers of processes that are proposed to share contexts."""
OF_THE_WHOLE_CHUNK = 6
"""Vectors of a token that processes exchange in a layer or keep of all: queries, keys, values, outputs over a share
of the keys, those of the others, and hidden vectors at the end; each of at most d_model numbers, as a rule."""
STEPS = 16
"""Parts of a length at which the FLOPs of a shared prefix are evaluated."""


@dataclass(frozen=True)
class Prompts:
    """Prompts of one length. n: how many; new: share of their tokens that is read for them and no other prompt;
    answers: tokens of all candidates of a prompt's answer; candidates: of them; greedy: tokens printed after each;
    reads: how often each is read, by what gives no state."""

    length: int
    n: int
    new: float = 1.0
    answers: int = 1
    candidates: int = 1
    greedy: int = 0
    reads: int = 1

    @property
    def tokens(self) -> int:
        """Of all prompts."""
        return self.n * self.length


@dataclass(frozen=True)
class ProbedModel:
    """A model to probe. cost: at a length; sizes: None where its mixers are not ours; blocks: that can be on
    different GPUs; half: whether its weights are kept in two bytes; count: runs that have this row in common;
    served: whether a server has it; knows_state: whether its cost has its state."""

    name: str
    cost: Callable[[int], ModelCost]
    sizes: ModelConfig | None
    blocks: int
    half: bool
    count: int = 1
    served: bool = False
    knows_state: bool = True


@dataclass(frozen=True)
class Device:
    """memory: bytes, None where unknown; peak: FLOP/s; bandwidth: bytes per second, None where unknown; gpu: whether
    layers can be split over several of them."""

    name: str
    peak: float
    memory: float | None
    bandwidth: float | None
    gpu: bool = True


def device_of(plan_for: str, half: bool) -> Device:
    """The machine of `study.plan_for`. half: whether products are in bfloat16."""
    if plan_for == "here":
        return Device("here", measured_peak(), memory_here(), None, gpu=gpu_here())
    peak = (GPU_PEAK if half else GPU_PEAK_32)[plan_for]
    return Device(plan_for, peak, GPU_MEMORY[plan_for], GPU_BANDWIDTH[plan_for])


def flops(prompts: Prompts, cost: Callable[[int], ModelCost]) -> float:
    """Forward FLOPs of reading prompts, shared prefixes once, and of their answers."""
    length = prompts.length
    shared = round((1 - prompts.new) * STEPS) * length // STEPS
    reading = _total(length, cost) - _total(shared, cost)
    at_end = _total(length, cost) - _total(length - 1, cost) + cost(length).head_flops
    return prompts.n * (prompts.reads * reading + (prompts.answers + prompts.greedy) * at_end)


def hours(prompts: Prompts, model: ProbedModel, device: Device, batch_tokens: int) -> float:
    """Of one model, in one process."""
    seconds = flops(prompts, model.cost) / (device.peak * UTILISATION)
    if device.bandwidth is not None and prompts.greedy:
        batches = -(-prompts.n // rows_of(prompts.length, batch_tokens))
        seconds += batches * prompts.greedy * _weights(model) / device.bandwidth
    return model.count * seconds / 3600


@dataclass(frozen=True)
class Memory:
    """Bytes. weights, states: what layers on different GPUs share out; each: what every GPU needs beside."""

    weights: float
    states: float
    each: float

    def on(self, gpus: int) -> float:
        """Of each of so many GPUs."""
        return (self.weights + self.states) / gpus + self.each


def memory(
    prompts: Prompts, model: ProbedModel, probe: ProbeConfig, rows: int, processes: int | None = None
) -> Memory:
    """Memory while so many prompts are read and answered together. processes: that share every context; None:
    probe.context_parallel."""
    n = probe.context_parallel if processes is None else processes
    cost, half = model.cost(prompts.length).blocks, model.half or probe.precision == "bf16"
    # a window's keys, which do not grow any more, are not divided
    grows = min(cost.kv_bytes, (cost.kv_bytes - model.cost(prompts.length - 1).blocks.kv_bytes) * prompts.length)
    cached = cost.kv_bytes - grows + grows / n
    state = cost.state_bytes + cached / (2 if half else 1)  # scans keep float32
    width = ff = vocab = 0
    if model.sizes is not None:
        width, ff, vocab = model.sizes.d_model or 0, model.sizes.d_ff or 0, model.sizes.vocab_size or 0
    tokens, size = rows * min(probe.chunk, prompts.length), 2 if half else 4
    chunk = tokens / n * (4 * width + 3 * max(ff, 2 * width)) * size
    chunk += tokens * OF_THE_WHOLE_CHUNK * width * size if n > 1 else 0.0
    logits = 2 * 4.0 * vocab * min(MAX_LOGIT_ROWS, rows * prompts.answers)
    copies = min(rows * prompts.candidates, max(1, int(COPIED_BYTES / max(state, 1))))
    continued = copies if copies == rows == 1 else 2 * copies  # copied rows, and what continues them
    waiting = 1 if prompts.new < 1 else 0  # a shared prefix
    return Memory(_weights(model), state * (waiting + rows + max(rows, continued)), max(chunk, logits))


def rows_of(length: int, batch_tokens: int) -> int:
    """Prompts that are read together."""
    return max(1, batch_tokens // length)


def gpus_for(need: Memory, model: ProbedModel, device: Device, processes: int = 1) -> int | None:
    """The least number of GPUs that have room, layers split, or those of the processes that share contexts; None
    where no number has. A machine without one is one."""
    if processes > 1:
        return processes if need.on(1) <= _room(device) else None
    most = model.blocks if device.gpu else 1
    return next((n for n in range(1, most + 1) if need.on(n) <= _room(device)), None)


def probe_cost_row(
    model: ProbedModel, prompts: Sequence[Prompts], probe: ProbeConfig, device: Device
) -> dict[str, Value]:
    """Cost of a model over prompts: their sums, and memory at the longest length."""
    needs = {one: memory(one, model, probe, 1) for one in prompts}
    worst = max(needs, key=lambda one: (one.length, needs[one].on(1)))
    n = probe.context_parallel
    gpus = gpus_for(needs[worst], model, device, n)
    split = 1 if n > 1 else gpus or (model.blocks if device.gpu else 1)
    rows = rows_of(worst.length, probe.batch_tokens)
    while rows > 1 and memory(worst, model, probe, rows).on(split) > _room(device):
        rows //= 2
    need = memory(worst, model, probe, rows)
    taken = sum(hours(p, model, device, probe.batch_tokens) for p in prompts) / n
    row: dict[str, Value] = {
        "model": model.name + (f" ({model.count} runs)" if model.count > 1 else ""),
        "parameters": model.cost(prompts[0].length).params,
        "length": worst.length,
        "prompt tokens": model.count * sum(one.tokens for one in prompts),
        "read": round(model.count * sum(one.tokens * one.new * one.reads for one in prompts)),
        "PFLOPs": float(f"{model.count * sum(flops(one, model.cost) for one in prompts) / 1e15:.4g}"),
        "weights GB": round(need.weights / 1e9, 2),
        "prompts at once": rows,
        "states GB": round(need.states / 1e9, 2),
    }
    taken_hours: dict[str, Value] = {f"hours, {device.name}": float(f"{taken:.3g}")}
    each = round(need.on(split) / 1e9, 2)
    if not device.gpu:
        row |= {"GB": each, "fits": gpus is not None} | taken_hours
    else:
        row |= {"GPUs": gpus if gpus is not None else f"> {n if n > 1 else model.blocks}", "GB each": each}
        row |= taken_hours | {"GPU hours": float(f"{taken * max(n, split):.3g}")}
    if model.served and not model.cost(1).params:
        row |= dict.fromkeys(("parameters", "PFLOPs", *taken_hours), "")
    return row | dict.fromkeys(_not_known(model) & row.keys(), "")


def sharing_note(model: ProbedModel, prompts: Sequence[Prompts], probe: ProbeConfig, device: Device) -> str:
    """What to do about a prompt that does not fit one GPU, or those that share it; empty where it fits, or where that
    is not known."""
    if not device.gpu or model.served or not model.knows_state or model.sizes is None:
        return ""
    longest = max(prompts, key=lambda one: one.length)
    need, n = memory(longest, model, probe, 1).on(1), probe.context_parallel
    if need <= _room(device):
        return ""
    each = {more: memory(longest, model, probe, 1, more).on(1) for more in SHARES if more > n}
    enough = next((more for more, size in each.items() if size <= _room(device)), None)
    on = "one device" if n == 1 else f"each of {n} devices"
    said = f"{model.name}: a prompt of {longest.length:,} tokens takes {need / 1e9:.1f} GB on {on}"
    said += f", which {'has' if n == 1 else 'have'} {_room(device) / 1e9:.0f} GB for it; "
    if enough is not None:
        return f"{said}probe.context_parallel={enough} would fit, {each[enough] / 1e9:.1f} GB each"
    return f"{said}no number of processes that share it would fit: weights and states of fixed size are too large"


def _not_known(model: ProbedModel) -> set[str]:
    """The cells that stay empty."""
    if model.served:
        return MEMORY_CELLS
    return set() if model.knows_state else MEMORY_CELLS - {"weights GB"}


def _room(device: Device) -> float:
    return float("inf") if device.memory is None else device.memory * USABLE


def _total(length: int, cost: Callable[[int], ModelCost]) -> float:
    """F(n): FLOPs of the blocks over a whole sequence."""
    return length * cost(length).blocks.flops if length > 0 else 0.0


def _weights(model: ProbedModel) -> float:
    return model.cost(1).params * (2.0 if model.half else 4.0)
