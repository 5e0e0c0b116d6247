"""What would wait for a GPU, found on a CPU: operations that ask a tensor for its value.

On a CPU no value has to be waited for, so that the operations that ask for one are collected instead. What the host
knows (`packed`, `known_on_host`) may be asked for anything; stand-ins for other packages may, too.
"""

import functools
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from lcprobe_kernels.known_on_host import KnownOnHost
from torch._library.custom_ops import OPDEFS
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

ROOT = Path(__file__).resolve().parent.parent
OURS = (f"{ROOT / 'lcprobe'}/", f"{ROOT / 'kernels'}/")
ASKS = (
    "_local_scalar_dense", "item", "is_nonzero", "nonzero", "nonzero_numpy", "masked_select", "equal", "allclose",
    "_unique2", "unique_consecutive", "unique_dim", "repeat_interleave", "bincount", "_assert_async",
)  # fmt: skip
"""Operations whose result, or its shape, is values of a tensor."""
IN_PYTHON = ("tolist", "item", "numpy", "__bool__", "__float__", "__int__", "__index__")
"""Methods of tensors that ask for values and that a CPU answers without any operation."""
COPIES = ("tensor", "as_tensor", "from_numpy")
"""Functions that make tensors of numbers of the host: with a device, a copy that a GPU's queue is waited for."""
ON_HOST = (
    "lcprobe_kernels.packed:boundaries_of", "lcprobe_kernels.packed:boundaries_up_to",
    "lcprobe_kernels.packed:_known_documents", "lcprobe_kernels.attention.reference:boundaries_up_to",
    "lcprobe_kernels.attention.flash_attn:pack_known", "lcprobe_kernels.known_on_host:_on_host",
    "lcprobe.models.token_context:boundaries_of",
)  # fmt: skip
"""Functions of what the host knows."""


class Asked(TorchDispatchMode):
    """Collects the operations that ask for values. inside: also in our own ops."""

    def __init__(self, inside: bool = True):
        super().__init__()
        self.names: list[str] = []
        self._inside = inside

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name, kwargs = func._schema.name, kwargs or {}
        own = name.startswith("lcprobe::")
        by_mask = name in ("aten::index", "aten::index_put_") and any(
            one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]
        )
        asks = name.split("::")[1] in ASKS and kwargs.get("output_size") is None
        if by_mask or (asks and not own):
            self.names.append(f"{name} in {_place()}")
        if own and self._inside:
            with self:  # what the op does
                return OPDEFS[name]._init_fn(*args, **kwargs)
        return func(*args, **kwargs)


class AskedInPython(TorchFunctionMode):
    """Collects what a CPU answers without any operation, and copies of the host's numbers to a given device."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, kwargs = getattr(func, "__name__", ""), kwargs or {}
        known = bool(args) and isinstance(args[0], KnownOnHost)
        if (name in IN_PYTHON and not known) or (name in COPIES and kwargs.get("device") is not None):
            self.names.append(f"{name} in {_place()}")
        return func(*args, **kwargs)


def not_asking(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, in which nothing is collected."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            return function(*args, **kwargs)

    return call


@contextmanager
def collected(inside: bool = True) -> Iterator[list[str]]:
    """Inside a `with` block: everything that would wait for a GPU, as `operation in file:line`."""
    asked, in_python, names = Asked(inside), AskedInPython(), list[str]()
    with ExitStack() as stack:
        for place in ON_HOST:
            module, name = import_module(place.split(":")[0]), place.split(":")[1]
            function = getattr(module, name)
            stack.callback(setattr, module, name, function)
            setattr(module, name, not_asking(function))
        stack.enter_context(in_python)
        stack.enter_context(asked)
        yield names
    names += asked.names + in_python.names


def _place() -> str:
    """Where in our code, or in fla's, the caller is. Not by the word: a checkout, and what is installed in it, may lie
    in a folder of that name."""
    stack = traceback.extract_stack(sys._getframe(2))
    frames = [f for f in stack if f.filename.startswith(OURS) or "/site-packages/fla/" in f.filename]
    return f"{frames[-1].filename.split('site-packages/')[-1]}:{frames[-1].lineno}" if frames else "the test"


class Copied(TorchDispatchMode):
    """Collects copies from the CPU to the meta device, which stands for a GPU: other than by `transfer.sent`, each
    waits for all that the GPU has to do."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        device = kwargs.get("device")
        to = "aten::_to_copy" in func._schema.name and device is not None and torch.device(device).type == "meta"
        into = func._schema.name == "aten::copy_" and args[0].is_meta
        if (to and args[0].device.type == "cpu") or (into and args[1].device.type == "cpu"):
            self.names.append(f"copy in {_place()}")
        return func(*args, **kwargs)
