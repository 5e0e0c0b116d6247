"""Shared by the Triton kernels: autotuning and products that also work in the interpreter, and dense operands.

Import it only where Triton is used. Kernels use plain pointers with 64-bit row offsets: block pointers left the
language, and batch x length x heads may pass 2^31 elements. A function returns in every branch of a compile-time
`if`, never behind one: the compiler checks the types of what stands behind a return, which is not run.
"""

from collections.abc import Callable, Sequence
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from lcprobe_kernels.backends import interpreting


def autotune(configs: Sequence[Any], key: Sequence[str]) -> Callable[[Any], Any]:
    """triton.autotune, or only its first configuration in the interpreter, which cannot measure time."""
    return triton.autotune(configs=list(configs)[:1] if interpreting() else list(configs), key=list(key))


def last_dim_dense(t: Tensor) -> Tensor:
    """The tensor with a dense last dimension; other strides stay, so that slices of one projection are not copied."""
    return t if t.stride(-1) == 1 else t.contiguous()


@triton.jit
def dot(a, b, INTERPRET: tl.constexpr, EXACT: tl.constexpr):
    """a @ b with a float32 sum. The interpreter's bf16 product is silently wrong, so it converts operands to float32.

    EXACT: float32 operands keep all their bits instead of TF32's ten.
    """
    if INTERPRET:
        return tl.dot(a.to(tl.float32), b.to(tl.float32))
    elif EXACT:
        return tl.dot(a, b, input_precision="ieee")
    else:
        return tl.dot(a, b)


@triton.jit
def dot_state(a, state, INTERPRET: tl.constexpr, EXACT: tl.constexpr):
    """a @ state for a float32 state that must not lose its bits to a's dtype: bf16 takes it as a high and a low part.

    Two bf16 products keep 16 bits, TF32's one keeps 10 and holds wider operands in registers. fp16 lacks the range
    for parts.
    """
    if EXACT or a.dtype != tl.bfloat16:
        return dot(a.to(tl.float32), state, INTERPRET, EXACT)
    else:
        high = state.to(tl.bfloat16)
        low = (state - high.to(tl.float32)).to(tl.bfloat16)
        return dot(a, high, INTERPRET, EXACT) + dot(a, low, INTERPRET, EXACT)
