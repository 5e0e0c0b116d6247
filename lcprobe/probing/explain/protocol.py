"""Protocol: everything that a number depends on besides the model, the task and the length. Imports no torch."""

from dataclasses import dataclass, replace
from typing import Literal

Room = Literal["answer", "budget", "none"]
Combine = Literal["mean", "all", "any"]
Cut = Literal["none", "budget", "3/4", "1/2"]
Tail = Literal["none", "space"]


@dataclass(frozen=True)
class Protocol:
    """How a number is measured; the defaults are how we do.

    scorer: a name of SCORERS. budget: greedy tokens that the scorer reads; 0: as many as the answer has. room: what
    of the length is left free behind the prompt: room for the answer, the whole budget, or nothing. counted: what the
    length counts: tokens of the model's own tokenizer (empty), of another one by name, `words` or `characters/4`.
    bos: begin tokens before the prompt; None: as the tokenizer has it. template: a chat template; its `+` form has
    the question's cue in the user's turn too. wrapper: instruction around the text. samples: `ours`, `lm-eval`, or a
    file of prompts. depths: where the needle is; empty: anywhere. haystacks: averaged over; empty: that of the task.
    combine: the scores of a sample's several answers. cut: how much of a prompt is left, cut on the left with its
    begin token: all but what the budget takes of the length, or that share of it. tail: what follows the prompt.
    keys: keys in the context; 0: the task's.
    """

    scorer: str = "ours"
    budget: int = 0
    room: Room = "answer"
    counted: str = ""
    bos: int | None = None
    template: str = "none"
    wrapper: str = "none"
    samples: str = "ours"
    depths: tuple[float, ...] = ()
    haystacks: tuple[str, ...] = ()
    combine: Combine = "mean"
    cut: Cut = "none"
    tail: Tail = "none"
    keys: int = 0

    @property
    def reading(self) -> "Protocol":
        """The part of it that decides what the model reads: protocols with one reading are scored from the same
        continuations."""
        budget = self.budget if "budget" in (self.room, self.cut) else 0
        return replace(self, scorer="ours", combine="mean", budget=budget)
