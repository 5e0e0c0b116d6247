"""Triton's compiler without a GPU: launches on tensors without data are compiled for a GPU that is not here, and not
run.

A launcher computes its tiles, switches and arguments as ever, from shapes alone (device "meta"); what it would launch
is specialised and compiled as Triton does it, for the target that `compiling_for` names.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any, Literal

import torch
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.runtime import driver
from triton.runtime.jit import JITFunction

SHARED_MEMORY = {80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448}
"""Compute capability -> bytes of shared memory that a program may ask for (CUDA C++ Programming Guide, table of
technical specifications: 163, 99, 99 and 227 KB)."""
PROCESSORS = 132
"""Multiprocessors that launchers are told of: an H100's."""
Stage = Literal["types", "ptx", "cubin"]
"""How far to compile: types (Triton's own language; the same for every target, a tenth of a second a kernel), ptx
(layouts and shared memory), cubin (registers, by ptxas: seconds)."""


@dataclass(frozen=True)
class Compiled:
    """A launch that was compiled. shared: bytes, from ptx on. registers, spilled (bytes stored and loaded) a thread:
    of a cubin. error: why it does not compile."""

    kernel: str
    tile: str
    warps: int
    shared: int | None = None
    registers: int | None = None
    spilled: int | None = None
    error: str = ""


class _Driver:
    """In place of the driver of a GPU: its target, and limits of its device. Triton keeps what is compiled by
    device."""

    def __init__(self, arch: int, stage: Stage):
        self._target = GPUTarget("cuda", 80 if stage == "types" else arch, 32)
        self._device, self._properties = (
            (stage, self._target.arch),
            {
                "max_shared_mem": SHARED_MEMORY[arch],
                "multiprocessor_count": PROCESSORS,
            },
        )
        self.utils = self

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> Any:
        return self._device

    def get_current_stream(self, device: Any) -> int:
        return 0

    def get_device_properties(self, device: Any) -> dict[str, int]:
        return self._properties


@contextmanager
def compiling_for(arch: int, stage: Stage, into: list[Compiled]) -> Iterator[None]:
    """Inside, every launch adds itself to `into`, compiled for sm_`arch`. Before the stage cubin, what Triton caches
    on disk is no kernel: set TRITON_CACHE_DIR to a folder of its own."""
    run, log, active = JITFunction.run, StringIO(), driver._active
    make_cubin = CUDABackend.make_cubin

    def compiled(self: Any, *args: Any, grid: Any, warmup: bool = False, **options: Any) -> None:
        tile = " ".join(f"{k}={v}" for k, v in options.items() if k.startswith(("B", "Q", "ROWS", "STEPS")))
        kernel = f"{self.fn.__module__}.{self.fn.__name__}".removeprefix("lcprobe_kernels.")
        facts = {"kernel": kernel, "tile": tile, "warps": options.get("num_warps", 4)}
        log.seek(0)
        log.truncate()
        try:
            binary = run(self, *args, grid=grid, warmup=True, **options)
        except Exception as error:
            into.append(Compiled(**facts, error=f"{type(error).__name__}: {error}"))
            return
        used, spilled = (re.findall(p, log.getvalue()) for p in (r"Used (\d+) reg", r"(\d+) bytes spill"))
        used, spilled = (sum(map(int, found)) if found else None for found in (used, spilled))
        shared = None if stage == "types" else binary.metadata.shared  # type: ignore
        into.append(Compiled(**facts, shared=shared, registers=used, spilled=spilled))

    def logged(self: Any, *args: Any) -> bytes:
        with redirect_stdout(log), knobs.nvidia.scope():
            knobs.nvidia.dump_ptxas_log = True
            return make_cubin(self, *args)

    def unchanged(self: Any, src: Any, *_: Any) -> Any:
        return src

    def without_shared(self: Any, src: Any, metadata: dict[str, Any], *_: Any) -> str:
        metadata |= {"shared": 0, "name": "unnamed"}
        return ""

    stubs: dict[str, Any] = {"make_cubin": logged if stage == "cubin" else lambda *_: b"not made"}
    if stage == "types":
        stubs |= {"make_ttgir": unchanged, "make_llir": without_shared, "make_ptx": unchanged}
    before = {name: vars(CUDABackend)[name] for name in stubs}
    JITFunction.run = compiled
    for name, stub in stubs.items():
        setattr(CUDABackend, name, stub)
    driver.set_active(_Driver(arch, stage))  # type: ignore
    try:
        with knobs.compilation.scope():
            knobs.compilation.always_compile = stage == "cubin"  # ptxas's log is not kept
            yield
    finally:
        JITFunction.run, driver._active = run, active
        for name, method in before.items():
            setattr(CUDABackend, name, method)


def empty(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    """A tensor without data."""
    return torch.empty(shape, dtype=dtype, device="meta")
