"""Registered ops, called without torch's dispatcher where nothing but autograd would see the call.

The Python layers of torch.library take about as long as several kernel launches: four ops a layer, forward and
backward, 64 layers, made a third of the host's work for a micro-batch of a 2.7 B model. Where a call may be seen by
others (torch.compile, a dispatch mode such as FakeTensorMode or FlopCounterMode, a subclass of Tensor, functorch), or
has only shapes (the meta device), the registered op is called.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._library.custom_ops import CustomOpDef

PLAIN = (Tensor, nn.Parameter)


def with_gradients(op: CustomOpDef, save: Callable[..., None], gradients: Callable[..., Any]) -> Callable[..., Any]:
    """Register the op's gradients, as `torch.library.register_autograd` takes them, and return what calls it."""
    torch.library.register_autograd(op._qualname, gradients, setup_context=save)

    class Direct(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            output = op._init_fn(*args)
            save(ctx, args, output)
            return output

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return gradients(ctx, *grads)

    def call(*args: Any) -> Any:
        if seen(args):
            return op(*args)
        return Direct.apply(*args) if torch.is_grad_enabled() else op._init_fn(*args)

    return call


def of_backward(op: CustomOpDef) -> Callable[..., Any]:
    """What calls an op of a backward pass, which is differentiated only to be refused."""

    def call(*args: Any) -> Any:
        return op(*args) if torch.is_grad_enabled() or seen(args) else op._init_fn(*args)

    return call


@contextmanager
def recorded() -> Iterator[None]:
    """Autograd inside a registered op, where the dispatcher leaves it out. In this thread: another one would wait for
    the thread of the GPU's backward pass, in which the op runs."""
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for key in ("ADInplaceOrView", "AutogradFunctionality", "AutogradOther", "AutogradNestedTensor"):
        excluded = excluded.remove(torch._C.DispatchKey.__members__[key])
    with torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded), torch.enable_grad():
        yield


def seen(args: tuple[Any, ...]) -> bool:
    """Whether others than autograd may see the call."""
    if torch.compiler.is_compiling():
        return True
    if torch._C._len_torch_dispatch_stack() or torch._C._are_functorch_transforms_active():
        return True
    return any(isinstance(arg, Tensor) and (type(arg) not in PLAIN or arg.is_meta) for arg in args)
