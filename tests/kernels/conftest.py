"""Kernel tests run Triton's interpreter on a CPU; it is set up once per test file, and not again for every kernel and
inner call."""

import pytest
from lcprobe_kernels import backends

from tests.kernels.judge import GPU


@pytest.fixture(autouse=True, scope="module")
def _interpreter_set_up_once():
    """The interpreter makes triton.language callable at every launch and every inner call, most of a small kernel's
    time."""
    if GPU or backends.find_spec("triton") is None or not backends.interpreting():
        yield
        return
    import triton.language as tl
    from lcprobe_kernels import triton_tools
    from triton.runtime import interpreter

    # tl.max sees triton.language.core, our own function triton.language
    scopes = [interpreter._patch_lang(function.fn) for function in (tl.max, triton_tools.dot)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", lambda _: interpreter._LangPatchScope())
        yield
    for scope in reversed(scopes):
        scope.restore()
