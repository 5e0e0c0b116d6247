"""What each backend can do for each op, as data: `ABILITIES[op][backend]`, in the order in which `auto` tries them.

What a peer can do is from its published source: flash-attn 2.8 (csrc/flash_attn/flash_api.cpp, src/mask.h) and
4.0.0b36 (flash_attn/cute/interface.py: heads up to 128 on Blackwell, no deterministic gradients from sm_120 on),
mamba-ssm 2.3.2 (ops/triton/ssd_combined.py), causal-conv1d 1.7 (csrc/causal_conv1d.cpp), flash-linear-attention 0.6.
"""

import torch

from lcprobe_kernels.choosing import Ability

HALF = (torch.float16, torch.bfloat16)
FLOATS = (*HALF, torch.float32, torch.float64)

FEATURES: dict[str, dict[str, str]] = {
    "attention": {
        "gradients": "gradients",
        "lse": "log-sum-exp",
        "lse gradient": "gradients of the log-sum-exp",
        "deterministic": "deterministic gradients",
        "gates": "cumulative gates",
        "table": "bias by distance but ALiBi's",
        "slopes": "ALiBi",
        "learned slopes": "gradients of ALiBi's slopes",
        "soft cap": "soft cap",
        "window": "window",
        "sinks": "sinks beside a window",
        "chunks": "chunks",
        "far": "least distance",
        "documents": "documents",
        "cache": "several queries after cached keys",
        "offset": "queries that are not the last keys",
        "value width": "values of another width than keys",
    },
    "ssd": {
        "gradients": "gradients",
        "deterministic": "deterministic gradients",
        "documents": "documents",
        "initial state": "initial state",
        "final state": "final state",
        "long": "inputs of 2^31 numbers",
    },
    "gated_linear_attention": {
        "gradients": "gradients",
        "deterministic": "deterministic gradients",
        "documents": "documents",
        "initial state": "initial state",
    },
    "causal_conv1d": {
        "gradients": "gradients",
        "deterministic": "deterministic gradients",
        "documents": "documents",
        "initial state": "initial state",
        "documents after a state": "documents beside an initial state",
        "wide": "width above 4",
        "ragged": "channels but multiples of 8",
        "long": "inputs of 2^31 numbers",
    },
    "rms_norm": {},
    "linear_recurrence": {},
    "linear_cross_entropy": {},
}
"""The words for what calls of an op may need, by the names that `Request.needs` and `Ability.offers` use."""


def _torch(op: str) -> Ability:
    return Ability("PyTorch operations: any device, any dtype", frozenset(FEATURES[op]), (), FLOATS)


def _triton(op: str, *lacks: str) -> Ability:
    return Ability(
        "our Triton kernels: gradients repeat bit by bit",
        frozenset(FEATURES[op]) - set(lacks),
        ("cuda", "cpu"),
        by_name={"cpu": "Triton's interpreter, for tests", "meta": "no data"},
    )


def _own(op: str, *lacks: str) -> dict[str, Ability]:
    return {"triton": _triton(op, *lacks), "torch": _torch(op)}


ABILITIES: dict[str, dict[str, Ability]] = {
    "ssd": {
        "mamba_ssm": Ability(
            "mamba-ssm's kernels, which others have run and timed on GPUs, ours not yet; chunks read states in "
            "float32",
            frozenset(FEATURES["ssd"]) - {"long"},
            by_name={"float32": "its products have the ten bits of TF32"},
            since={"deterministic": (2, 3, 2)},
        ),
        **_own("ssd"),
    },
    "causal_conv1d": {
        "causal_conv1d": Ability(
            "its CUDA kernels, which others have run and timed on GPUs, ours not yet; sums in float32",
            frozenset(FEATURES["causal_conv1d"]) - {"documents after a state", "wide", "ragged", "long"},
            since={"deterministic": (1, 6, 0)},
        ),
        **_own("causal_conv1d", "wide"),
    },
    "rms_norm": _own("rms_norm"),
    "linear_recurrence": {
        **_own("linear_recurrence"),
        "fla": Ability(
            "flash-linear-attention's kernels",
            frozenset(FEATURES["linear_recurrence"]),
            by_name={"": "it goes token by token, ours scan the pieces of a sequence at once"},
        ),
    },
    "linear_cross_entropy": _own("linear_cross_entropy"),
    "gated_linear_attention": {
        "fla": Ability(
            "flash-linear-attention's kernels; this package has none of its own for this op",
            frozenset(FEATURES["gated_linear_attention"]) - {"deterministic"},
            by_name={"float32": "its products have the ten bits of TF32"},
        ),
        "torch": _torch("gated_linear_attention"),
    },
    "attention": {
        "flash_attn": Ability(
            "flash-attn's kernels: what it has of masks and biases costs no memory",
            frozenset(FEATURES["attention"])
            - {"gates", "table", "learned slopes", "sinks", "chunks", "far", "offset", "value width"},
            dtypes=HALF,
            capability=(8, 0),
            max_head_dim=256,
            head_dim_multiple=8,
            lse_columns=8,
        ),
        "sdpa": Ability(
            "plain causal attention: PyTorch's scaled_dot_product_attention, which has flash kernels of its own",
            frozenset({"gradients", "deterministic", "value width"}),
            (),
            FLOATS,
        ),
        **_own("attention", "soft cap"),
        "flash_attn_4": Ability(
            "flash-attn 4's kernels, for Hopper and Blackwell",
            frozenset(FEATURES["attention"])
            - {"gates", "table", "slopes", "learned slopes", "sinks", "chunks", "far", "offset", "value width"},
            dtypes=HALF,
            capability=(9, 0),
            below=(12, 0),
            max_head_dim=128,
            head_dim_multiple=8,
            by_name={"": "its versions are betas, of which this adapter follows 4.0.0b36"},
        ),
        "flex": Ability(
            "PyTorch's FlexAttention",
            frozenset(FEATURES["attention"]) - {"deterministic"},
            ("cuda", "cpu"),
            by_name={"": "without gradients on a CPU, and on a GPU those of a table are summed in any order"},
        ),
    },
}
