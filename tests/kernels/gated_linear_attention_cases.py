"""Inputs and runs that the tests of gated_linear_attention share."""

import torch
from lcprobe_kernels.gated_linear_attention import gated_linear_attention
from torch.nn import functional as F

from tests.kernels.judge import DEVICE, outputs_and_gradients

FORMS = ["plain", "bonus", "beta", "erase", "ab"]


def draw_inputs(form, shape, seed, decay="middling", per_head=False, with_state=True):
    """Float64 inputs by name. mixed: decays that keep all, lose nearly all, and lose everything, token by token."""
    batch, seqlen, h, (d_k, d_v) = shape
    gen = torch.Generator().manual_seed(seed)

    def r(*size):
        return torch.randn(*size, generator=gen, dtype=torch.float64)

    g = -torch.rand(batch, seqlen, h, 1 if per_head else d_k, generator=gen, dtype=torch.float64)
    if decay == "mixed":
        kinds = torch.tensor([-1e-6, -0.3, -25.0, -90.0], dtype=torch.float64)
        g = kinds[torch.randint(0, 4, g.shape, generator=gen)]
    tensors = {
        "q": r(batch, seqlen, h, d_k),
        "k": r(batch, seqlen, h, d_k),
        "v": r(batch, seqlen, h, d_v),
        "log_decay": g * (0.05 if decay == "weak" else 1.0),
    }
    if form == "bonus":
        tensors["bonus"] = r(h, d_k)
    if form == "beta":  # unit keys and beta < 2: the state neither explodes nor only shrinks
        tensors["k"] = F.normalize(tensors["k"], dim=-1)
        tensors["beta"] = torch.rand(batch, seqlen, h, generator=gen, dtype=torch.float64) * 2
    if form == "erase":
        tensors["k"] = F.normalize(tensors["k"], dim=-1)
        tensors["erase"] = torch.rand(batch, seqlen, h, d_k, generator=gen, dtype=torch.float64)
    if form == "ab":  # as in RWKV-7: take away along a unit vector, put back a share along another scale of it
        kappa = F.normalize(r(batch, seqlen, h, d_k), dim=-1)
        tensors["a"], tensors["b"] = (
            -kappa,
            kappa * torch.rand(batch, seqlen, h, d_k, generator=gen, dtype=torch.float64),
        )
    if with_state:
        tensors["initial_state"] = r(batch, h, d_k, d_v)
    starts = torch.rand(batch, seqlen, generator=gen) < 0.25
    return {k: v.to(DEVICE) for k, v in tensors.items()}, starts.to(DEVICE)


def judged(run, inputs, seed):
    return outputs_and_gradients(run, inputs, list(inputs), seed)


def ours(starts=None, chunk=64, **more):
    return lambda i: gated_linear_attention(**i, starts=starts, chunk_size=chunk, return_state=True, **more)
