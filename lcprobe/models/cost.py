"""The cost of a layer or a model, which matching and `--plan` read. Without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """The cost of one layer or a whole model at one length.

    params: trainable parameters. flops: forward floating-point operations per token, mean over the positions of a
    sequence of that length (a multiply-add counts as two). state_bytes: state per sequence whose size does not depend
    on length. kv_bytes: state per sequence that grows with length. Bytes are those of float32 states and caches.
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
        """The cost of n such layers."""
        return Cost(n * self.params, n * self.flops, n * self.state_bytes, n * self.kv_bytes)
