"""ssd through mamba-ssm's own Triton kernels (state-spaces/mamba, ops/triton/ssd_combined.py), to compare ours with.

Differs from ours in rounding: states between chunks are kept in x's dtype. Its backward accumulates with atomics.
"""

import torch
from torch import Tensor

from lcprobe_kernels.peers import triton_code

MAMBA_SSM_CHUNK_SIZE = 256


def run(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    dt_bias: Tensor | None,
    dt_limit: tuple[float, float],
    initial_state: Tensor | None,
    starts: Tensor | None,
    chunk_size: int | None,
    return_state: bool,
) -> tuple[Tensor, Tensor | None]:
    """As `lcprobe_kernels.ssd.ssd`, with its own autograd."""
    scan = triton_code("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined
    if starts is not None and initial_state is not None:  # mamba-ssm gives the state to the first token's document
        initial_state = initial_state.where(~starts[:, :1, None, None], 0)
    bias = torch.zeros_like(A) if dt_bias is None else dt_bias
    documents = None if starts is None else starts.cumsum(1, dtype=torch.int32)
    results = scan(
        x, dt, A, B, C, chunk_size or MAMBA_SSM_CHUNK_SIZE, D=D, dt_bias=bias, initial_states=initial_state,
        seq_idx=documents,
        dt_softplus=True, dt_limit=dt_limit, return_final_states=return_state,
    )  # fmt: skip
    return results if return_state else (results, None)
