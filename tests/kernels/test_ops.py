"""The map of ops is complete: every op has a folder with its registration, and its tests, benchmark and note."""

from importlib import import_module
from pathlib import Path

import lcprobe_kernels
import pytest
import torch
from lcprobe_kernels import OPS
from lcprobe_kernels.abilities import ABILITIES
from lcprobe_kernels.peers import PEERS

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(lcprobe_kernels.__file__).parent


def test_the_map_lists_every_op_folder():
    assert set(OPS) == {file.parent.name for file in PACKAGE.glob("*/__init__.py")}


@pytest.mark.parametrize("name", OPS)
def test_the_module_opens_with_its_equation_and_registers_one_op_with_a_reference(name):
    module = import_module(f"lcprobe_kernels.{name}")
    assert module.__doc__.startswith(f"{name}: ")
    assert "=" in module.__doc__, "no equation"
    assert module.NAME == name
    assert {name, "reference"} <= set(module.__all__)
    assert callable(getattr(module, name))
    for direction in ("fwd", "bwd"):
        schema = getattr(torch.ops.lcprobe, f"{name}_{direction}").default._schema
        assert schema.name == f"lcprobe::{name}_{direction}"


@pytest.mark.parametrize("name", OPS)
def test_the_map_names_the_implementations_in_the_folder(name):
    files = {file.stem for file in (PACKAGE / name).glob("*.py")}
    assert {"reference", "cpu"} <= files
    assert ("triton" in ABILITIES[name]) == any(file.startswith("triton_") for file in files)
    others = {"package" if peer == name else peer for peer in ABILITIES[name].keys() - {"triton", "torch", "sdpa"}}
    assert others == files & {*PEERS, "flex", "package"}


@pytest.mark.parametrize("name", OPS)
def test_an_op_comes_with_tests_a_benchmark_and_a_note(name):
    assert list((ROOT / "tests/kernels").glob(f"test_{name}*.py"))
    assert "def cases(" in (ROOT / "benchmarks/ops" / f"{name}.py").read_text(encoding="utf-8")
    assert (ROOT / "benchmarks/notes" / f"{name}.md").is_file()
