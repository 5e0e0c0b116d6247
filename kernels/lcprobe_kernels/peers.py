"""Peers' Triton code, importable even without their compiled CUDA extensions, which their packages import eagerly."""

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any


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
