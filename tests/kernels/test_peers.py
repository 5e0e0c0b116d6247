"""Peers' Triton code: had without the package's extension, refused where it needs one; and as a backend, equal to
ours."""

import sys
from importlib.util import find_spec

import pytest
import torch
from lcprobe_kernels import backends
from lcprobe_kernels.peers import triton_code
from lcprobe_kernels.ssd import reference, ssd

from tests.kernels.judge import DEVICE, GPU, relative_error


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose __init__ wants an extension that was not built, with one module that does not and one that
    does."""
    folder = tmp_path / "peer_of_tests" / "ops"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("import no_such_cuda_extension\n")
    (folder / "__init__.py").write_text("")
    (folder / "plain.py").write_text("from peer_of_tests.ops import helper\nvalue = helper.value + 1\n")
    (folder / "helper.py").write_text("value = 41\n")
    (folder / "compiled.py").write_text("import no_such_cuda_extension\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "peer_of_tests"
    for name in [name for name in sys.modules if name.startswith("peer_of_tests")]:
        del sys.modules[name]


def test_a_module_without_the_extension_loads(package):
    assert triton_code(f"{package}.ops.plain").value == 42
    assert triton_code(f"{package}.ops.plain") is sys.modules[f"{package}.ops.plain"]


@pytest.mark.parametrize("name", ["peer_of_tests.ops.compiled", "peer_of_tests.ops.absent", "no_such_peer.ops"])
def test_what_cannot_be_had_is_an_import_error(package, name):
    with pytest.raises(ImportError):
        triton_code(name)


@pytest.mark.gpu
@pytest.mark.skipif(not GPU or find_spec("mamba_ssm") is None, reason="needs a CUDA device and mamba-ssm")
def test_mamba_ssm_as_a_backend_equals_the_definition():
    gen = torch.Generator().manual_seed(0)
    shapes = [(2, 300, 4, 64), (2, 300, 4), (4,), (2, 300, 1, 32), (2, 300, 1, 32), (4,), (4,)]
    inputs = [torch.randn(*s, generator=gen).to(DEVICE) for s in shapes]
    inputs[2] = -inputs[2].abs() - 0.1
    state, starts = (
        torch.randn(2, 4, 64, 32, generator=gen).to(DEVICE),
        torch.zeros(2, 300, dtype=torch.bool, device=DEVICE),
    )
    starts[0, 0] = starts[1, 130] = True
    want, end = reference(*(t.double() for t in inputs), initial_state=state.double(), starts=starts)
    with backends.using("mamba_ssm"):
        y, after = ssd(*inputs, initial_state=state, starts=starts, return_state=True)
    assert relative_error(y, want) < 5e-3  # TF32
    assert relative_error(after, end) < 5e-3
