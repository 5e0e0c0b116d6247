"""The ops of lcprobe: sequence kernels with a plain PyTorch reference, a CPU path and Triton kernels, registered with
torch.library.

`OPS` is the map: an op is imported as `lcprobe_kernels.<name>`, and its `__init__` opens with the equation, the
public function and the registration. `abilities` says what each backend can do, `choosing` takes one for a call, and
`python -m lcprobe_kernels` reports what is taken here and why. The package depends on torch and, for the GPU paths,
on triton alone.

To add an op `name`, write these files (`tests/kernels/test_ops.py` checks that none is missing):

    lcprobe_kernels/__init__.py          one line in `OPS`
    lcprobe_kernels/abilities.py         what each of its backends can do
    lcprobe_kernels/name/__init__.py     the equation, public function `name`, registered `name_fwd`, `name_bwd`
    lcprobe_kernels/name/reference.py    `reference`: the equation token by token in any dtype, without triton
    lcprobe_kernels/name/cpu.py          the fast form in PyTorch operations, for any device
    lcprobe_kernels/name/triton_*.py     Triton kernels, if any; `name/<peer>.py` adapts the kernels of a peer
    tests/kernels/test_name.py           equality with the reference in float64 on every path, forward and backward
    benchmarks/ops/name.py               `cases`: sizes, peers and costs
    benchmarks/notes/name.md             what is read, written and computed, and what speed follows from it
"""

from dataclasses import dataclass

from lcprobe_kernels.errors import ArgumentError

__all__ = ["OPS", "ArgumentError", "Op"]


@dataclass(frozen=True)
class Op:
    """An op of this package; its module is `lcprobe_kernels.<name>`."""

    equation: str
    """What it computes, in one line; the module's docstring defines the symbols."""


OPS = {
    "ssd": Op("h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T, y_t = h_t C_t + D x_t"),
    "causal_conv1d": Op("y_t = silu(bias + sum_k w_k x_{t - width + 1 + k})"),
    "rms_norm": Op("y = weight u / sqrt(mean(u^2) + eps), u = x, x silu(gate) or residual + x"),
    "linear_recurrence": Op("h_t = exp(log_a_t) h_{t-1} + b_t"),
    "linear_cross_entropy": Op("loss_i = logsumexp_j(h_i . w_j) - h_i . w_target"),
    "gated_linear_attention": Op(
        "S_t = diag(exp(g_t)) S_{t-1} + b_t (a_t^T S_{t-1}) + k_t v_t^T, o_t = scale q_t^T S_t"
    ),
    "attention": Op("o_i = sum_j softmax_j(cap(scale q_i . k_j) + T[i - j] + F_i - F_j) v_j"),
}
