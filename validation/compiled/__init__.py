"""Every Triton kernel compiled for GPUs that are not here: shared memory, registers and spills of its default tiles.

Nothing runs. `rows` is what the tests look at too, up to the types or to PTX.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lcprobe.errors import ConfigError, unknown_name

if TYPE_CHECKING:
    from validation.compiled.offline import Stage

TITLE = "compiled kernels: shared memory, registers, and bytes spilled a thread"
OPTIONS = ("archs", "dtypes", "ops", "switches", "stage")
GROUP = ("op", "switches", "dtype", "arch")
ARCHS = (80, 89, 90)
"""A100; L4, L40S and RTX 40; H100 and H200."""
DTYPES = ("float32", "bfloat16", "float16")
MOST_SPILLED = 128
"""Bytes a thread that are spilled without a reason."""
REASONS = {
    "attention.triton_bwd._dkv_kernel": "heads of 128 on sm_90 with a table, gates, documents and chunks at once: in "
    "bfloat16 18 words are stored before the loop over rows, and 7 of them read in it; tiles of (64, 64) spill 856 "
    "bytes, and in float32 those of (64, 32) with eight warps 1460",
}
"""Why a kernel spills more than that where it does, by its name."""
BLOCKS_WANTED = 2
"""Programs of attention on a multiprocessor at once, by registers and shared memory."""
ALONE = {
    "float32": "both parts of every operand lie in shared memory, and smaller tiles would read all keys more often",
}
"""Why fewer programs of attention share a multiprocessor where they do, by dtype."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per op, kernel, dtype and architecture. options, each comma-separated: archs, dtypes, ops (names of
    `launches`), switches (on, off); stage: types, ptx or cubin."""
    if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        raise ConfigError("TRITON_INTERPRET", os.environ["TRITON_INTERPRET"], "unset: nothing is interpreted here")
    from validation.compiled.launches import LAUNCHES, WIDER

    known = {
        "archs": [str(a) for a in ARCHS],
        "dtypes": list(DTYPES),
        "ops": [*LAUNCHES, *WIDER],
        "switches": ["on", "off"],
        "stage": ["types", "ptx", "cubin"],
    }
    chosen = known | {"stage": ["cubin"]}
    for key, text in options.items():
        chosen[key] = text.split(",") if key != "ops" else [n.strip() for n in text.split(";")]
        for name in chosen[key]:
            if name not in known[key]:
                raise unknown_name(key, name, known[key])
    found = []
    switches = [s == "on" for s in chosen["switches"]]
    for row in rows(chosen["stage"][0], map(int, chosen["archs"]), chosen["dtypes"], chosen["ops"], switches):  # type: ignore[arg-type]
        print(" ".join(str(value) for value in row.values()), flush=True)
        found.append(row)
    return found


def rows(
    stage: "Stage",
    archs: Iterable[int] = ARCHS,
    dtypes: Iterable[str] = DTYPES,
    ops: Iterable[str] | None = None,
    switches: Iterable[bool] = (True, False),
) -> Iterator[dict[str, Any]]:
    """Facts of every kernel that the ops launch, in float32, bfloat16 and float16, with their switches on and off."""
    from validation.compiled.launches import LAUNCHES, WIDER
    from validation.compiled.offline import SHARED_MEMORY, Compiled, compiling_for

    if stage != "cubin":  # a folder of its own, which outlives the process
        os.environ["TRITON_CACHE_DIR"] = str(Path(tempfile.gettempdir()) / f"lcprobe-compiled-{os.getuid()}-{stage}")
    launches, switches = LAUNCHES | WIDER, list(switches)
    for arch in archs:
        for dtype in dtypes:
            for op in LAUNCHES if ops is None else ops:
                for on in switches:
                    compiled: list[Compiled] = []
                    with compiling_for(arch, stage, compiled):
                        launches[op](getattr(torch, dtype), on)
                    facts = {"op": op, "switches": "on" if on else "off", "dtype": dtype, "arch": f"sm_{arch}"}
                    for one in compiled:
                        yield {**facts, **asdict(one), "limit": SHARED_MEMORY[arch]}


def notes(found: list[dict[str, Any]]) -> list[str]:
    """How many fit, and what spills more than MOST_SPILLED bytes."""
    failed = sum(bool(row["error"]) for row in found)
    wide = sum(row["shared"] is not None and row["shared"] > row["limit"] for row in found)
    spilled = [row for row in found if (row["spilled"] or 0) > MOST_SPILLED]
    most: dict[str, int] = {}
    for row in spilled:
        most[row["kernel"]] = max(most.get(row["kernel"], 0), row["spilled"])
    told = [f"{kernel}: up to {n}; {REASONS.get(kernel, 'no reason')}" for kernel, n in sorted(most.items())]
    lines = [
        f"{len(found)} launches: {failed} do not compile, {wide} ask for more shared memory than there is, "
        f"{len(spilled)} spill more than {MOST_SPILLED} bytes a thread (stores and loads)",
        *told,
    ]
    for dtype in DTYPES:
        single = [row for row in found if row["dtype"] == dtype and alone(row)]
        if single:
            named = sorted({f"{row['kernel']} {row['tile']} on {row['arch']}" for row in single})
            lines.append(
                f"{dtype}: fewer than {BLOCKS_WANTED} programs of attention a multiprocessor: {'; '.join(named)}: "
                f"{ALONE.get(dtype, 'no reason')}"
            )
    return lines


def alone(row: dict[str, Any]) -> bool:
    """Whether fewer than BLOCKS_WANTED programs of a kernel of attention share a multiprocessor."""
    programs = blocks(row)
    return "attention" in row["op"] and programs is not None and programs < BLOCKS_WANTED


def blocks(row: dict[str, Any]) -> int | None:
    """Programs that a multiprocessor holds at once: of its 65,536 registers, and of its shared memory, 1 KB of which
    each takes besides its own. None before the stage cubin."""
    if row["registers"] is None:
        return None
    registers = -(-row["registers"] // 8) * 8 * 32 * row["warps"]
    return min(65_536 // registers, (row["limit"] + 1024) // (row["shared"] + 1024))
