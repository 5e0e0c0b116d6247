"""Triton's interpreter with the same results in a fraction of the time: it works out types, shapes and overflows anew
at every operation, which is most of the time of a small kernel.

Written from the source of Triton 3.9; other versions run as they are. `test_quick_interpreter.py` compares both.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

WRITTEN_FOR = "3.9."
"""The versions of Triton whose interpreter these functions replace parts of."""


@contextmanager
def quick_interpreter() -> Iterator[None]:
    """Make launches of kernels in this process quick."""
    import triton

    with pytest.MonkeyPatch.context() as patch:
        if triton.__version__.startswith(WRITTEN_FOR):
            _types_made_once(patch)
            _operations_without_detours(patch)
        with _language_set_up_once(patch):
            yield


@contextmanager
def _language_set_up_once(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The interpreter makes triton.language callable at every launch and every inner call."""
    import triton.language as tl
    from lcprobe_kernels import triton_tools
    from triton.runtime import interpreter

    # tl.max sees triton.language.core, our own function triton.language
    scopes = [interpreter._patch_lang(function.fn) for function in (tl.max, triton_tools.dot)]
    patch.setattr(interpreter, "_patch_lang", lambda _: interpreter._LangPatchScope())
    yield
    for scope in reversed(scopes):
        scope.restore()


def _types_made_once(patch: pytest.MonkeyPatch) -> None:
    """Shapes, names and NumPy's counterparts of types are kept; equal objects are equal."""
    from triton.language import core
    from triton.runtime import interpreter

    of_type, unwrap = interpreter._get_np_dtype, core._unwrap_if_constexpr
    block_init, equal = core.block_type.__init__, core.dtype.__eq__
    plain = {int, bool, float, str, type(None)}
    np_dtypes: dict[str, Any] = {}
    shapes: dict[Any, Any] = {}
    blocks: dict[Any, Any] = {}
    sizes: dict[Any, Any] = {}

    def np_dtype(dtype):
        if dtype.name not in np_dtypes:
            np_dtypes[dtype.name] = of_type(dtype)
        return np_dtypes[dtype.name]

    def unwrapped(value):
        kind = type(value)
        return value if kind in plain else value.value if kind is core.constexpr else unwrap(value)

    def init_block(self, element_ty, shape):
        lengths = tuple([unwrapped(n) for n in shape])
        key = element_ty.name, lengths
        if key not in blocks or any(type(n) is not int for n in lengths):
            block_init(self, element_ty, shape)
            self.shape = shapes.setdefault(lengths, self.shape)
            blocks[key] = self.shape, self.numel, self.name
        else:
            self.element_ty, (self.shape, self.numel, self.name) = element_ty, blocks[key]

    def init_tensor(self, handle, type):
        self.handle, self.type, self.dtype = handle, type, type.scalar
        lengths = tuple(type.shape.values) if type.is_block() else ()
        if lengths not in sizes:
            count = 1
            for n in lengths:
                count *= n
            sizes[lengths] = core.constexpr(count), core.tuple([core.constexpr(n) for n in lengths])
        self.numel, self.shape = sizes[lengths]

    patch.setattr(interpreter, "_get_np_dtype", np_dtype)
    patch.setattr(core, "_unwrap_if_constexpr", unwrapped)
    patch.setattr(core.block_type, "__init__", init_block)
    patch.setattr(core.tensor, "__init__", init_tensor)
    patch.setattr(core.dtype, "__eq__", lambda self, other: self is other or equal(self, other))


def _operations_without_detours(patch: pytest.MonkeyPatch) -> None:
    """No overflow is computed that nothing asserts, no equal shapes are broadcast, and functions of the language are
    called directly."""
    from triton.language.semantic import TritonSemantic
    from triton.runtime import interpreter

    builder, broadcast = interpreter.interpreter_builder, TritonSemantic.broadcast_impl_value
    assert not builder.options.debug, "what is computed is thrown away"
    patch.setattr(builder, "options", replace(builder.options, sanitize_overflow=False))

    def broadcast_if_unequal(self, lhs, rhs):
        one, other = lhs.type, rhs.type
        if one.is_block() and other.is_block() and one.shape is other.shape:
            return lhs, rhs
        return broadcast(self, lhs, rhs)

    def patch_attr(obj, name, member, builder, scope):
        def called(*args, **kwargs):
            kwargs["_semantic"] = interpreter.interpreter_semantic
            return member(*args, **kwargs)

        scope.set_attr(obj, name, called)

    patch.setattr(TritonSemantic, "broadcast_impl_value", broadcast_if_unequal)
    patch.setattr(interpreter, "_patch_attr", patch_attr)
