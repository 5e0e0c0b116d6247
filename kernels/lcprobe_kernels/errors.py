"""One line per wrong argument: what was given, what is allowed."""

from torch import Tensor


class ArgumentError(ValueError):
    """An op was called with a shape, dtype or value that it does not take."""

    def __init__(self, argument: str, given: object, allowed: str):
        super().__init__(f"{argument}: given {given}; allowed: {allowed}")


def check_shape(op: str, name: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    """Raise ArgumentError unless `tensor` has exactly `shape`."""
    if tuple(tensor.shape) != shape:
        raise ArgumentError(f"{op}: {name}", f"shape {tuple(tensor.shape)}", str(shape))
