"""What makes Triton's interpreter quick in these tests changes no bit of what it computes, and nothing after it."""

import pytest
import torch
from lcprobe_kernels import backends
from lcprobe_kernels.attention import Mask, attention
from lcprobe_kernels.ssd import ssd

from tests.kernels.judge import GPU, outputs_and_gradients
from tests.kernels.quick_interpreter import quick_interpreter
from tests.kernels.ssd_cases import CASE, draw_inputs, judged

pytest.importorskip("triton", reason="triton is not installed")
pytestmark = pytest.mark.skipif(GPU, reason="kernels are not interpreted")


@pytest.fixture(autouse=True, scope="module")
def _quick_interpreter():
    """Overrides that of the folder: here both are run."""


def results(dtype):
    """Sums, products, masks, loops and reductions of two ops, forwards and backwards."""
    g = torch.Generator().manual_seed(0)
    x = {name: torch.randn(1, 18, 2, 5, generator=g, dtype=torch.float64).to(dtype) for name in "qkv"}
    x["table"] = torch.randn(2, 18, generator=g)
    mask = Mask(high=9, sinks=2)

    def attend(x):
        return attention(x["q"], x["k"], x["v"], table=x["table"], mask=mask, return_lse=True)

    case = CASE | {"shape": (1, 18), "seed": 4, "documents": "some"}
    with backends.using("triton"):
        return outputs_and_gradients(attend, x, x, 0), judged(
            ssd, case, draw_inputs((1, 18, (2, 1), (3, 4)), 7, dtype), chunk_size=16, return_state=True
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_results_are_those_of_the_interpreter_to_the_bit(dtype):
    want = results(dtype)
    with quick_interpreter():
        got = results(dtype)
    for plain, quick in zip(want, got, strict=True):
        assert plain.keys() == quick.keys()
        assert all(torch.equal(plain[name], quick[name]) for name in plain)


def test_nothing_is_left_behind():
    from triton.language import core
    from triton.runtime import interpreter

    def parts():
        return (
            *(core.tensor.__init__, core.tensor.__add__, core.block_type.__init__, core.dtype.__eq__, core.load),
            *(interpreter._get_np_dtype, interpreter._patch_lang, interpreter.interpreter_builder.options),
        )

    before = parts()
    with quick_interpreter():
        assert before != parts()
    assert before == parts()


def test_what_is_refused_is_refused_quickly_too():
    import triton.language as tl

    with quick_interpreter():
        assert tl.block_type(tl.float32, [4, 8]) == tl.block_type(tl.float32, [4, 8])
        assert tl.block_type(tl.float32, [4, 8]) != tl.block_type(tl.float16, [4, 8])
        assert tl.block_type(tl.float32, [4, 8]) != tl.block_type(tl.float32, [8, 4])
        assert str(tl.block_type(tl.float32, [4, 8])) != str(tl.block_type(tl.float16, [4, 8]))
        for _ in range(2):
            with pytest.raises(ValueError, match="power of 2"):
                tl.block_type(tl.float32, [4, 6])
            with pytest.raises(TypeError, match="0d"):
                tl.block_type(tl.float32, [])
            with pytest.raises(TypeError, match="must have type"):
                tl.block_type(tl.float32, [4.0, 8])
