"""The gate before a server: does it give the log-probabilities that the same weights give here?

Servers differ from the model by dtype, kernels, other tokens at the start, or a wrong cache; a probe would measure
that with the model. Samples of the grid are scored by both, and above a limit the server is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lcprobe.errors import ConfigError
from lcprobe.probing.engines.contract import Continuations, Ids


@dataclass(frozen=True)
class Parity:
    """largest: difference of an answer token's log-probability, in nats, over `tokens` of them in `samples`.
    disagree: tokens of which one side alone says that they are the argmax."""

    samples: int
    tokens: int
    largest: float
    disagree: int
    limit: float

    @property
    def within(self) -> bool:
        """Whether no difference is above the limit; one that is no number is."""
        return self.largest <= self.limit

    def __str__(self) -> str:
        return (
            f"max |dlogprob| {self.largest:.2g} nats over {self.tokens} answer tokens of {self.samples} samples "
            f"(allowed {self.limit:g}); argmax differs in {self.disagree}"
        )


def measure_parity(
    server: Continuations, reference: Continuations, pairs: Sequence[tuple[Ids, Ids]], limit: float
) -> Parity:
    """Both sides on (prompt, answer) pairs."""
    largest, tokens, disagree = 0.0, 0, 0
    for (theirs, hit), (ours, hit_here) in zip(server.likelihoods(pairs), reference.likelihoods(pairs), strict=True):
        difference = np.abs(theirs.astype(np.float64) - ours)
        largest = max(largest, float(np.nan_to_num(difference, nan=np.inf).max()))
        tokens, disagree = tokens + len(ours), disagree + int((hit != hit_here).sum())
    return Parity(len(pairs), tokens, largest, disagree, limit)


def check_parity(
    name: str, server: Continuations, reference: Continuations, pairs: Sequence[tuple[Ids, Ids]], limit: float
) -> Parity:
    """`measure_parity`, for the report. name: of the server. Raises ConfigError above the limit."""
    parity = measure_parity(server, reference, pairs, limit)
    if not parity.within:
        allowed = f"at most probe.server.limit={limit:g} nats from the reference"
        given = f"max |dlogprob| {parity.largest:.2g} nats over {parity.tokens} answer tokens"
        raise ConfigError(name, given, f"{allowed}: the same weights, tokenizer and precision on both sides")
    return parity
