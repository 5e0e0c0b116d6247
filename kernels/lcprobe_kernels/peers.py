"""Peers: which are installed in a version that the adapters are written for, and their Triton code, importable even
without their compiled CUDA extensions, which their packages import eagerly."""

import re
import sys
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from lcprobe_kernels.choosing import dotted


@dataclass(frozen=True)
class Peer:
    """A package with kernels for some of the ops."""

    distribution: str
    """Its name for pip. The module alone tells nothing: flash-attn-4 installs modules below flash_attn, too."""
    least: tuple[int, ...]
    """The first version whose functions have the names and arguments that the adapter uses."""
    below: tuple[int, ...] | None = None
    extension: str | None = None
    """A module that must import: the compiled extension, built for one version of torch."""


PEERS = {
    "mamba_ssm": Peer("mamba-ssm", (2, 0)),
    "causal_conv1d": Peer("causal-conv1d", (1, 5), (2,), "causal_conv1d_cuda"),
    "flash_attn": Peer("flash-attn", (2, 7), (3,), "flash_attn_2_cuda"),
    "flash_attn_4": Peer("flash-attn-4", (4, 0), (5,), "flash_attn.cute.interface"),
    "fla": Peer("fla-core", (0, 4)),
}


@cache
def installed(name: str) -> str | None:
    """The version of a peer that is installed, else None."""
    try:
        return version(PEERS[name].distribution)
    except PackageNotFoundError:
        return None


def unusable(name: str, try_import: bool = False) -> str | None:
    """Why a peer cannot be used, whatever the machine; None: it can. try_import: import its extension to see."""
    peer, found = PEERS[name], installed(name)
    if found is None:
        return f"{peer.distribution} is not installed: pip install {peer.distribution}"
    numbers = numbers_of(found)
    if numbers < peer.least or (peer.below is not None and numbers >= peer.below):
        wanted = f">= {dotted(peer.least)}" + ("" if peer.below is None else f", < {dotted(peer.below)}")
        return f"{peer.distribution} {found} is installed: the adapter is for {wanted}"
    return _broken(peer.extension) if try_import and peer.extension is not None else None


def numbers_of(version: str) -> tuple[int, ...]:
    """The first three numbers of a version: (2, 3, 2) of 2.3.2.post1."""
    return tuple(int(n) for n in re.findall(r"\d+", version)[:3])


def versions() -> dict[str, tuple[int, ...]]:
    """The versions of the peers that are installed."""
    found = {name: installed(name) for name in PEERS}
    return {name: numbers_of(version) for name, version in found.items() if version is not None}


@cache
def _broken(extension: str) -> str | None:
    """Why a compiled extension does not import, such as one that was built for another torch."""
    try:
        import_module(extension)
    except ImportError as error:
        return f"{extension} does not import: {str(error).splitlines()[0]}"
    return None


def triton_code(module: str) -> Any:
    """Import a peer's module, such as `mamba_ssm.ops.triton.ssd_combined`. Raises ImportError if that is impossible.

    If the package itself fails to import (a missing extension), an empty package of its name replaces it, from which
    modules without extensions import.
    """
    package = module.split(".")[0]
    try:
        return import_module(module)
    except ImportError:
        spec = find_spec(package) if package not in sys.modules else None
        if spec is None or spec.submodule_search_locations is None:
            raise
    for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
        del sys.modules[name]  # what the failed import left behind
    bare = ModuleType(package)
    bare.__path__ = list(spec.submodule_search_locations)
    sys.modules[package] = bare
    try:
        return import_module(module)
    except ImportError:
        del sys.modules[package]
        raise
