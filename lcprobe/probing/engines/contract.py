"""What can be probed: the contract between a model and everything that reads prompts with it.

`lcprobe.models.language_model.LanguageModel` satisfies it as it is. A model of your own subclasses it and writes
`new_state`, `hidden` and `logits`; everything else has a default, which a property or a class attribute replaces.
What cannot give its state, such as a server, is probed as `Continuations`.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol, Self

import numpy as np
from torch import Tensor

from lcprobe.models.language_model import Selection
from lcprobe.models.state import StateSums, sums_of, tensors_of


class ProbedState(Protocol):
    """What a model carries from one chunk of tokens to the next."""

    @abstractmethod
    def rows(self, index: Tensor) -> Self:
        """The rows of the batch at `index`, (n,) int64: picked, reordered or repeated, so that shared prefixes are
        read once.
        """
        ...


class ProbedModel(Protocol):
    """A causal model over token ids with an explicit state. Any chunking of a sequence gives the same hidden
    vectors."""

    @abstractmethod
    def new_state(self, batch: int, length: int | None = None) -> ProbedState:
        """The state of `batch` rows before the first token. length: of the whole sequences; None unless
        `needs_length`.
        """
        ...

    @abstractmethod
    def hidden(self, tokens: Tensor, *, state: Any) -> tuple[Tensor, Any]:
        """tokens: (batch, seqlen) int64 -> (batch, seqlen, d_model), and the state after them; `state` itself is
        unchanged.
        """
        ...

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """(..., d_model) -> (..., vocab_size)."""
        ...

    def prompt_ended(self, state: Any) -> Any:
        """The state from which an answer is decoded, given that after its prompt: the same one, unless a model
        decodes otherwise than it reads."""
        return state

    def state_sums(self, state: Any, rows: int) -> StateSums:
        """How large the numbers of a state of so many rows are, row by row."""
        return sums_of(tensors_of(state), rows)

    @property
    def needs_length(self) -> bool:
        """Whether `new_state` must be given the length of the whole sequence, prompt and answer: tokens depend on
        it."""
        return False

    @property
    def max_length(self) -> int | None:
        """The longest sequence that the model can read, in tokens; None: no limit."""
        return None

    @property
    def selection(self) -> Selection | None:
        """How prompts are cut into pieces one of which is read in their place; None: prompts are read whole."""
        return None

    @property
    def rereads(self) -> bool:
        """Whether `hidden` reads every sequence again from its first token: prompts are then read whole and share
        nothing."""
        return False


Ids = Sequence[int] | np.ndarray


class Continuations(Protocol):
    """What continues prompts of any lengths, with or without a state to give: `Continuer` for a ProbedModel, and
    servers."""

    @abstractmethod
    def likelihoods(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(context, continuation) -> log-likelihood (n,) float32 and argmax hit (n,) bool of each continuation
        token."""
        ...

    @abstractmethod
    def greedy(
        self, prompts: Sequence[Ids], steps: Sequence[int], done: Callable[[int, list[int]], bool]
    ) -> list[list[int]]:
        """Greedy continuations, at most steps[i] tokens for prompt i; `done(i, ids so far)` ends one early."""
        ...

    @property
    def max_length(self) -> int | None:
        """The longest sequence that can be read, in tokens; None: no limit."""
        return None
