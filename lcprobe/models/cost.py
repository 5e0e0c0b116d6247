"""What a part of a model costs: the numbers that matching and `--plan` read. Without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """Of one layer or a whole model, at one length.

    params: trainable numbers. flops: forward floating-point operations a token, mean over the positions of a sequence
    of that length (a multiply-add is two). state_bytes: carried between chunks, independent of length, a sequence.
    kv_bytes: carried and growing with length, a sequence. Bytes for float32 states and caches.
    """

    params: int = 0
    flops: float = 0.0
    state_bytes: int = 0
    kv_bytes: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.params + other.params,
            self.flops + other.flops,
            self.state_bytes + other.state_bytes,
            self.kv_bytes + other.kv_bytes,
        )

    def times(self, n: int) -> "Cost":
        """n of them."""
        return Cost(n * self.params, n * self.flops, n * self.state_bytes, n * self.kv_bytes)
