"""Masks, inputs and runs that the tests of attention's Triton kernels share."""

import torch
from hypothesis import strategies as st
from lcprobe_kernels import backends
from lcprobe_kernels.attention import attention

from tests.kernels.judge import DEVICE, GPU, outputs_and_gradients

TERMS = ("q", "k", "v", "table", "f_q", "f_k")
MASKS = {
    "causal": {},
    "band": {"high": 9},
    "band of a tile": {"high": 16},
    "sinks": {"high": 7, "sinks": 3},
    "sinks of many tiles": {"high": 4, "sinks": 35},
    "only sinks": {"high": 0, "sinks": 5},
    "far": {"low": 20},
    "ring": {"low": 5, "high": 27},
    "far and sinks": {"low": 3, "high": 11, "sinks": 2},
    "chunk": {"chunk": 12},
    "chunk before": {"chunk": 9, "chunk_low": 1, "chunk_high": 2},
    "chunks before": {"chunk": 7, "chunk_low": 2, "chunk_high": 1 << 30},
    "chunk and band": {"chunk": 20, "chunk_high": 2, "high": 15, "sinks": 1},
    "nothing": {"low": 1 << 20},
}
SCALE = 5 if GPU else 1
"""Lengths on a GPU, whose tiles are wider."""
cases = st.fixed_dictionaries(
    {
        "seqlen": st.sampled_from([1, 2, 15, 16, 17, 33]),
        "past": st.sampled_from([0, 0, 1, 16, 21]),
        "heads": st.sampled_from([(1, 1), (2, 1), (2, 2), (3, 1)]),
        "widths": st.sampled_from([(8, 8), (5, 3), (3, 17), (18, 1)]),
        "terms": st.sampled_from(["", "table", "f", "table f", "table f docs", "docs"]),
        "seed": st.integers(0, 2**20),
    }
)
FULL = {"seqlen": 33, "past": 21, "heads": (2, 1), "widths": (8, 5), "terms": "table f docs", "seed": 3, "batch": 2}


def inputs(case, dtype=torch.float64):
    """Terms that a case has, in the values of `dtype`."""
    g = torch.Generator().manual_seed(case["seed"])
    seqlen, past, (heads, kv), (d_qk, d_v) = (
        case["seqlen"] * SCALE,
        case["past"] * SCALE,
        case["heads"],
        case["widths"],
    )
    n, batch = seqlen + past, case.get("batch", 1)

    def draw(*shape, dtype=dtype):
        return torch.randn(shape, generator=g, dtype=torch.float64).to(DEVICE, dtype)

    acc_dtype = torch.promote_types(dtype, torch.float32)
    tensors = {"q": draw(batch, seqlen, heads, d_qk), "k": draw(batch, n, kv, d_qk), "v": draw(batch, n, kv, d_v)}
    if "table" in case["terms"]:
        tensors["table"] = draw(heads, n, dtype=acc_dtype)
    if "f" in case["terms"]:
        tensors |= {"f_q": draw(batch, seqlen, heads, dtype=acc_dtype), "f_k": draw(batch, n, heads, dtype=acc_dtype)}
    if "docs" in case["terms"]:
        numbers = (torch.rand(batch, n, generator=g) < 0.1 / SCALE).cumsum(1).to(DEVICE)
        tensors |= {"docs_q": numbers[:, past:] - 1, "docs_k": numbers - 1}
    return tensors


def run(op, mask, **changes):
    def call(x):
        x = x | changes
        gates = (x["f_q"], x["f_k"]) if x.get("f_q") is not None else None
        documents = (x["docs_q"], x["docs_k"]) if x.get("docs_q") is not None else None
        options = {"return_lse": True} if op is attention else {}
        terms = {"table": x.get("table"), "cumulative": gates, "documents": documents, "mask": mask, "scale": 0.4}
        o, lse = op(x["q"], x["k"], x["v"], **terms, **options)
        return o, torch.where(torch.isneginf(lse), 0.0, lse)  # a weight of the test times -inf would be inf

    return call


def judged(op, case, x, mask, **changes):
    wanted = [name for name in TERMS if name in x]
    with backends.using("triton" if op is attention else "torch"):
        return outputs_and_gradients(run(op, mask, **changes), x, wanted, case["seed"])


def wide(x):
    return {k: v.double() if v.is_floating_point() else v for k, v in x.items()}
