"""Inputs and runs that the ssd tests share."""

import torch
from lcprobe_kernels import backends
from lcprobe_kernels.ssd import ssd

from tests.kernels.judge import DEVICE, draw_starts, outputs_and_gradients

NAMES = ("x", "dt", "A", "B", "C", "D", "dt_bias", "initial_state")
SMALL = ("dt", "A", "D", "dt_bias", "initial_state")
"""Parameters and states stay float32 beside a narrow x."""
CASE = {"documents": "none", "with_state": True, "plain": False, "limit": (0.0, float("inf"))}
"""Add a shape (batch, seqlen, ...) and a seed. plain: without D and dt_bias."""


def draw_inputs(shape, seed, dtype=torch.float64, scale=1.0):
    """Inputs by name. shape: (batch, seqlen, (n_heads, n_groups), (head_dim, d_state))."""
    batch, seqlen, (h, g), (p, n) = shape
    gen = torch.Generator().manual_seed(seed)

    def r(*size):
        return torch.randn(*size, generator=gen, dtype=torch.float64)

    tensors = {
        "x": r(batch, seqlen, h, p) * scale,
        "dt": r(batch, seqlen, h) * scale,
        "A": -torch.rand(h, generator=gen, dtype=torch.float64) * 8 - 0.01,
        "B": r(batch, seqlen, g, n),
        "C": r(batch, seqlen, g, n),
        "D": r(h),
        "dt_bias": r(h),
        "initial_state": r(batch, h, p, n),
    }
    acc_dtype = torch.promote_types(dtype, torch.float32)
    return {k: v.to(acc_dtype if k in SMALL else dtype).to(DEVICE) for k, v in tensors.items()}


def runner(op, case, **options):
    """A function of named inputs that runs `op` on a case."""
    starts = draw_starts(case["documents"], *case["shape"][:2], case["seed"])

    def run(i):
        extra = {} if case["plain"] else {"D": i["D"], "dt_bias": i["dt_bias"]}
        state = i["initial_state"] if case["with_state"] else None
        five = [i[k] for k in ("x", "dt", "A", "B", "C")]
        return op(*five, **extra, dt_limit=case["limit"], initial_state=state, starts=starts, **options)

    return run


def judged(op, case, inputs, **options):
    """Outputs and gradients of `op` on a case."""
    unused = {"initial_state"} - ({"initial_state"} if case["with_state"] else set())
    unused |= {"D", "dt_bias"} if case["plain"] else set()
    return outputs_and_gradients(runner(op, case, **options), inputs, set(NAMES) - unused, case["seed"])


def run_path(path, inputs, part, state):
    """ssd on a path over a slice of the tokens: y and the final state."""
    with backends.using(path):
        sliced = [inputs[k][:, part] if inputs[k].dim() > 1 else inputs[k] for k in ("x", "dt", "A", "B", "C")]
        y, after = ssd(*sliced, initial_state=state, chunk_size=16, return_state=True)
    return y, after
