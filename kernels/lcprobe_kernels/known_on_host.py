"""Tensors on a GPU whose numbers the host knows as well, for libraries that ask a GPU for what we know.

flash-linear-attention makes its tables of chunks from cu_seqlens, and needs their sizes: it asks the GPU for them, by
`.item()`, `.tolist()` or `repeat_interleave`, in every layer, and its argument `cu_seqlens_cpu` replaces only some of
these waits, by copies that wait as well. A tensor of this class computes everything twice, on its device and on the
host, and answers from the host.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lcprobe_kernels.transfer import sent

ANSWERS = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__")
"""Methods that are answered from the host."""


class KnownOnHost(Tensor):
    """A tensor on a device, and the same on the CPU. What is computed from such tensors alone is one of them; what
    is computed from others, too, is an ordinary tensor."""

    on_host: Tensor

    @staticmethod
    def of(values: Tensor, device: torch.device) -> "KnownOnHost":
        """values: on the CPU."""
        return _known(sent(values, device), values)

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute on the device, and on the host if that knows all inputs."""
        kwargs, name = kwargs or {}, func.__name__
        given = [*_tensors(args), *_tensors(tuple(kwargs.values()))]
        known = all(isinstance(t, KnownOnHost) for t in given)
        if name in ANSWERS and known:
            return _on_host(func, args, kwargs)
        if name == "repeat_interleave" and isinstance(repeats := _repeats(args, kwargs), KnownOnHost):
            kwargs.setdefault("output_size", _on_host(lambda counts: int(counts.sum()), (repeats,), {}))
        if name == "to" and not isinstance(args[0], KnownOnHost) and args[0].device.type == "cpu":
            return sent(args[0].to(args[1].dtype), args[1].device)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
        if not isinstance(result, Tensor) or any(result is t for t in given):
            return result
        result = result.as_subclass(Tensor)
        return _known(result, _on_host(func, args, kwargs)) if known else result


def _known(on_device: Tensor, on_host: Tensor) -> KnownOnHost:
    known = on_device.as_subclass(KnownOnHost)
    known.on_host = on_host
    return known


def _on_host(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What a function gives for the host's tensors."""
    moved = {name: _host_of(value) for name, value in kwargs.items() if name != "device"}
    return func(*(_host_of(arg) for arg in args), **moved)


def _host_of(value: Any) -> Any:
    if isinstance(value, KnownOnHost):
        return value.on_host
    return type(value)(map(_host_of, value)) if type(value) in (list, tuple) else value


def _tensors(values: tuple[Any, ...]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(tuple(value))
    return found


def _repeats(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return kwargs.get("repeats", args[-1] if args and isinstance(args[-1], Tensor) else None)
