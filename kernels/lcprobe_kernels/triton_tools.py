"""Shared by the Triton kernels: autotuning and products that also work in the interpreter, and dense operands.

Import it only where Triton is used. Kernels use plain pointers with 64-bit row offsets: block pointers left the
language, and batch x length x heads may pass 2^31 elements. A function returns in every branch of a compile-time
`if`, never behind one: the compiler checks the types of what stands behind a return, which is not run.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lcprobe_kernels import backends
from lcprobe_kernels.backends import interpreting


def autotune(configs: Sequence[Any], key: Sequence[str]) -> Callable[[Any], Any]:
    """triton.autotune, or only its first configuration in the interpreter, which cannot measure time."""
    return triton.autotune(configs=list(configs)[:1] if interpreting() else list(configs), key=list(key))


def last_dim_dense(t: Tensor) -> Tensor:
    """The tensor with a dense last dimension; other strides stay, so that slices of one projection are not copied."""
    return t if t.stride(-1) == 1 else t.contiguous()


INTERPRETED_SHARED_MEMORY = 232_448
"""What the interpreter, which has no such limit, is taken to have: that of an H100."""


def shared_memory() -> int:
    """Bytes of shared memory that a program may ask for on the current device."""
    if interpreting():
        return INTERPRETED_SHARED_MEMORY
    driver: Any = triton.runtime.driver.active
    return driver.utils.get_device_properties(driver.get_current_device())["max_shared_mem"]


def processors() -> int:
    """Multiprocessors of the current device; 1 in the interpreter."""
    if interpreting():
        return 1
    driver: Any = triton.runtime.driver.active
    return driver.utils.get_device_properties(driver.get_current_device())["multiprocessor_count"]


def precision(dtype: torch.dtype) -> str:
    """How tensor cores multiply operands of this dtype; narrow ones are multiplied as they are."""
    return backends.float32_products() if dtype == torch.float32 else "tf32"


@triton.jit
def _tf32(x):
    """float32 rounded to TF32's ten bits, halves away from zero, as cvt.rna.tf32.f32 rounds."""
    return ((x.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def _as_tensor_cores(a, b, PRECISION: tl.constexpr):
    """The interpreter's product of float32 as a GPU forms it: see lib/Dialect/TritonGPU/Transforms/F32DotTC.cpp in
    Triton."""
    high_a, high_b = _tf32(a), _tf32(b)
    if PRECISION == "tf32x3":
        small = tl.dot(_tf32(a - high_a), high_b) + tl.dot(high_a, _tf32(b - high_b))
        return tl.where(small == small, small, 0.0) + tl.dot(high_a, high_b)
    else:
        return tl.dot(high_a, high_b)


@triton.jit
def dot(a, b, INTERPRET: tl.constexpr, PRECISION: tl.constexpr):
    """a @ b with a float32 sum. The interpreter's bf16 product is silently wrong, so it converts operands to float32.

    PRECISION: of float32 operands, tf32 (ten bits) or tf32x3 (three products of ten bits: all but the last one or
    two). Never products without tensor cores: they spill tens of KB a thread.
    """
    if INTERPRET:
        if a.dtype == tl.float32:
            return _as_tensor_cores(a, b, PRECISION)
        else:
            return tl.dot(a.to(tl.float32), b.to(tl.float32))
    else:
        return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def add_dot_state(total, a, state, INTERPRET: tl.constexpr, PRECISION: tl.constexpr):
    """total + a @ state for a float32 state that must not lose its bits to a's dtype: bf16 takes it as a high and a
    low part.

    Two bf16 products keep 16 bits, TF32's one keeps 10 and holds wider operands in registers. fp16 lacks the range
    for parts.
    """
    if a.dtype != tl.bfloat16:
        return total + dot(a.to(tl.float32), state, INTERPRET, PRECISION)
    else:
        high = state.to(tl.bfloat16)
        low = (state - high.to(tl.float32)).to(tl.bfloat16)
        # in this order each product is added into `total`, and needs no registers of its own
        return (total + dot(a, low, INTERPRET, PRECISION)) + dot(a, high, INTERPRET, PRECISION)
