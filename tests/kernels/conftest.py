"""Kernel tests run Triton's interpreter on a CPU."""

import pytest
from lcprobe_kernels import backends

from tests.kernels.judge import GPU
from tests.kernels.quick_interpreter import quick_interpreter


@pytest.fixture(autouse=True, scope="module")
def _quick_interpreter():
    if GPU or backends.find_spec("triton") is None or not backends.interpreting():
        yield
        return
    with quick_interpreter():
        yield


@pytest.fixture(scope="module")
def small_attention_tiles():
    """Tiles so small that short sequences have many; on a GPU as they are."""
    with pytest.MonkeyPatch.context() as patch:
        if GPU:
            yield
            return
        from lcprobe_kernels.attention import triton_bwd, triton_fwd

        for module, name in ((triton_fwd, "TILES"), (triton_bwd, "DQ_TILES"), (triton_bwd, "DKV_TILES")):
            patch.setattr(module, name, {2: {256: (16, 16, 1)}, 4: {256: (16, 16, 1)}})
        patch.setattr(triton_bwd, "TABLE_TILES", {2: {256: (32, 16, 1)}, 4: {256: (32, 16, 1)}})
        patch.setattr(triton_bwd, "TABLE_COLUMNS", {2: 16, 4: 16})
        patch.setattr(triton_bwd, "MIN_TABLE_PROGRAMS", 12)
        yield
