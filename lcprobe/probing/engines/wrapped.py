"""A model around another one: what a wrapper does not change is the inner model's."""

from typing import Any

from torch import Tensor

from lcprobe.models.language_model import Selection
from lcprobe.models.state import StateSums
from lcprobe.probing.engines.contract import ProbedModel, ProbedState


class Wrapped(ProbedModel):
    """The base of wrappers; everything is the inner model's until it is overridden."""

    def __init__(self, model: ProbedModel):
        self.model = model

    def new_state(self, batch: int, length: int | None = None) -> ProbedState:
        """See ProbedModel."""
        return self.model.new_state(batch, length)

    def hidden(self, tokens: Tensor, *, state: Any) -> tuple[Tensor, Any]:
        """See ProbedModel."""
        return self.model.hidden(tokens, state=state)

    def logits(self, hidden: Tensor) -> Tensor:
        """See ProbedModel."""
        return self.model.logits(hidden)

    def prompt_ended(self, state: Any) -> Any:
        """See ProbedModel."""
        return self.model.prompt_ended(state)

    def state_sums(self, state: Any, rows: int) -> StateSums:
        """See ProbedModel."""
        return self.model.state_sums(state, rows)

    @property
    def needs_length(self) -> bool:
        """See ProbedModel."""
        return self.model.needs_length

    @property
    def max_length(self) -> int | None:
        """See ProbedModel."""
        return self.model.max_length

    @property
    def rereads(self) -> bool:
        """See ProbedModel."""
        return self.model.rereads

    @property
    def selection(self) -> Selection | None:
        """See ProbedModel."""
        return self.model.selection
