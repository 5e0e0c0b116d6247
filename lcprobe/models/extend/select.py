"""Chunk and select: read a long prompt in pieces of the training length, each with the question, and answer from the surest.

    pieces_c = head + chunk_c + tail        answer from argmin_c H(p( . | pieces_c))

Ben-Kish et al. 2025 (OPRM, arXiv 2505.07793, sec. 3): a recurrent model that reads so beats the same model that reads all, on
long-context benchmarks. Nothing of the model changes and nothing is carried from piece to piece: it is the bar that a claim to
use long context has to pass. Chunks overlap here, so that a needle that one chunk cuts is whole in the next; 0 is the paper's.
"""

from dataclasses import dataclass

import numpy as np

from lcprobe.errors import EpisodeError, require
from lcprobe.models.extend.contract import Extension, ExtensionContext
from lcprobe.models.language_model import LanguageModel


@dataclass(frozen=True)
class ChunkSelectConfig:
    """What goes with every chunk."""

    tail: int = 32
    """Last tokens of the prompt, which hold the question: they stand behind every chunk."""
    head: int = 1
    """First tokens of the prompt, a begin token: they stand before every chunk."""
    overlap: int = 16
    """Tokens that neighbouring chunks share."""

    def check(self, at: str) -> None:
        """Raises ConfigError below 1 and 0."""
        require(f"{at}.tail", self.tail, self.tail >= 1, ">= 1")
        require(f"{at}.head", self.head, self.head >= 0, ">= 0")
        require(f"{at}.overlap", self.overlap, self.overlap >= 0, ">= 0")


@dataclass(frozen=True)
class PromptChunks:
    """How prompts are cut: what a model says of itself as `selection`, and `probing.inference.chunk_selection` does."""

    context_length: int
    config: ChunkSelectConfig

    def pieces(self, prompt: np.ndarray, room: int) -> list[np.ndarray]:
        """prompt: (n,) ids. room: tokens of the answer. -> what is read of it: itself where it fits into context_length.

        Every token of the prompt is in a piece, and all pieces are equally long. Raises EpisodeError where a chunk would be no
        longer than its overlap.
        """
        if len(prompt) + room <= self.context_length:
            return [prompt]
        c = self.config
        body = self.context_length - room - c.head - c.tail
        if body <= c.overlap:
            allowed = f"head + tail + overlap + the answer's {room} below the training length ({self.context_length})"
            raise EpisodeError("pe.extend", f"chunk_select with chunks of {body}", allowed)
        head, middle, tail = np.split(prompt, [c.head, len(prompt) - c.tail])
        last = len(middle) - body
        starts = [*range(0, last, body - c.overlap), last]
        return [np.concatenate([head, middle[start : start + body], tail]) for start in starts]


class ChunkSelect(Extension):
    """Answer from one piece of the prompt."""

    Config = ChunkSelectConfig

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """A model of any layers has prompts."""
        c = self.config
        require(
            "pe.extend.tail",
            c.tail,
            c.head + c.tail + c.overlap < context.context_length,
            f"head + tail + overlap below the training length ({context.context_length})",
        )
        return super().not_applicable(model, context)

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Nothing but how it is asked."""
        model.selection = PromptChunks(context.context_length, self.config)
