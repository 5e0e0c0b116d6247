"""Every Triton kernel compiles in every dtype for GPUs that are not here, and fits their shared memory.

The interpreter checks no types: a kernel may pass every other test here and compile nowhere. Compiling needs a process
in which nothing is interpreted.
"""

import itertools
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import json, sys
from validation.compiled import rows
print(json.dumps([list(rows(**one)) for one in json.loads(sys.argv[1])]))
"""
QUICK = (
    {"stage": "types"},
    {
        "stage": "ptx",
        "archs": [89],
        "dtypes": ["float32", "bfloat16"],
        "ops": ["ssd", "attention"],
        "switches": [True],
    },
)
"""What the quick tests look at: every kernel's types; and ops with tensor-core products, at the limit of consumer GPUs."""


def compiled(*each):
    """Rows of validation.compiled for each of some arguments, from another process."""
    kept = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-c", PROGRAM, json.dumps(each)]
    done = subprocess.run(
        command, env=kept | {"PYTHONPATH": paths}, capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@cache
def quick():
    """The rows of QUICK, from one process."""
    return compiled(*QUICK)


def named(row):
    return " ".join(str(row[key]) for key in ("kernel", "switches", "dtype", "arch", "tile"))


def check(rows):
    """Every row compiles, and asks for no more shared memory than there is."""
    assert [f"{named(row)}: {row['error']}" for row in rows if row["error"]] == []
    wide = [row for row in rows if row["shared"] is not None and row["shared"] > row["limit"]]
    assert [f"{named(row)}: {row['shared']} of {row['limit']} bytes" for row in wide] == []


def written():
    """The kernels of the package, by module and name."""
    for file in (ROOT / "kernels" / "lcprobe_kernels").rglob("triton_*.py"):
        for name in re.findall(r"^def (_\w+_kernel)\(", file.read_text(encoding="utf-8"), re.MULTILINE):
            yield f"{file.parent.name}.{file.stem}.{name}"


def test_every_kernel_is_well_typed_in_every_dtype_at_the_default_tiles_of_every_gpu():
    rows, _ = quick()
    check(rows)
    assert {(row["kernel"], row["dtype"], row["arch"]) for row in rows} == {
        (kernel, dtype, arch)
        for kernel in written()
        for dtype in ("float32", "bfloat16", "float16")
        for arch in ("sm_80", "sm_89", "sm_90")
    }


def test_products_fit_the_smallest_shared_memory():
    _, rows = quick()
    assert rows
    check(rows)


@pytest.mark.slow
@pytest.mark.parametrize("arch", [80, 89, 90])
def test_every_kernel_compiles_to_ptx_and_fits(arch):
    from validation.compiled.launches import LAUNCHES, WIDER

    (rows,) = compiled({"stage": "ptx", "archs": [arch], "ops": [*LAUNCHES, *WIDER]})
    check(rows)


@pytest.mark.slow
@pytest.mark.parametrize("switch", [True, False])
@pytest.mark.parametrize("op", ["attention", "attention, heads of 128"])
def test_attention_keeps_its_numbers_in_registers_and_shares_a_multiprocessor(op, switch):
    """Only ptxas says what is spilled. Where its allocation fails, it tells of 32 registers and 12 KB spilled."""
    from validation.compiled import MOST_SPILLED, alone

    given = {"stage": "cubin", "archs": [80], "dtypes": ["bfloat16"], "ops": [op], "switches": [switch]}
    (rows,) = compiled(given)
    check(rows)
    assert [f"{named(row)}: {row['spilled']}" for row in rows if row["spilled"] > MOST_SPILLED] == []
    assert [named(row) for row in rows if alone(row)] == []


def committed():
    return json.loads((ROOT / "validation" / "results" / "compiled-cpu.json").read_text())["rows"]


def test_the_committed_table_has_a_reason_for_whatever_spills_or_is_alone():
    from validation.compiled import ALONE, MOST_SPILLED, REASONS, alone

    check(committed())
    assert {row["kernel"] for row in committed() if row["spilled"] > MOST_SPILLED} == REASONS.keys()
    assert {row["dtype"] for row in committed() if alone(row)} == ALONE.keys()


def test_the_committed_table_has_every_op_with_and_without_switches_in_every_dtype_on_every_gpu():
    from validation.compiled import ARCHS, DTYPES
    from validation.compiled.launches import LAUNCHES

    groups = {(row["op"], row["switches"], row["dtype"], row["arch"]) for row in committed()}
    wanted = itertools.product(LAUNCHES, ["on", "off"], DTYPES, [f"sm_{arch}" for arch in ARCHS])
    assert [group for group in wanted if group not in groups] == []
    assert {row["kernel"] for row in committed()} == {*written()}


def test_programs_a_multiprocessor_are_those_of_its_registers_and_shared_memory():
    from validation.compiled import blocks

    row = {"registers": 128, "warps": 4, "shared": 1024, "limit": 101_376}
    assert blocks(row) == 4
    assert blocks({**row, "registers": 255}) == blocks({**row, "shared": 50_176}) == 2
    assert blocks({**row, "registers": None}) is None
