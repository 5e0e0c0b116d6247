"""Chunk and select: split a long prompt into pieces of the training length, each with the question; answer from the
most confident.

    piece_c = head + chunk_c + tail        answer from argmin_c H(p( . | piece_c))

Ben-Kish et al. 2025 (OPRM, arXiv 2505.07793, sec. 3): on long-context benchmarks a recurrent model that reads prompts
this way beats the same model that reads them whole. The model is unchanged, and no state is carried from piece to
piece: a baseline for any claim that a model uses long context. Here chunks overlap, so that a needle cut by one chunk
is complete in the next; the paper's overlap is 0.
"""

from dataclasses import dataclass

import numpy as np

from lcprobe.errors import EpisodeError, require
from lcprobe.models.extend.contract import Extension, ExtensionContext
from lcprobe.models.language_model import LanguageModel


@dataclass(frozen=True)
class ChunkSelectConfig:
    """The parts of a prompt that are repeated in every piece, and the overlap of chunks."""

    tail: int = 32
    """Number of last tokens of the prompt, which contain the question, appended to every chunk."""
    head: int = 1
    """Number of first tokens of the prompt, such as a begin-of-sequence token, prepended to every chunk."""
    overlap: int = 16
    """Number of tokens that neighbouring chunks share."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a tail below 1, and for a negative head or overlap."""
        require(f"{at}.tail", self.tail, self.tail >= 1, ">= 1")
        require(f"{at}.head", self.head, self.head >= 0, ">= 0")
        require(f"{at}.overlap", self.overlap, self.overlap >= 0, ">= 0")


@dataclass(frozen=True)
class PromptChunks:
    """How prompts are split: the `selection` of a model, which `probing.inference.chunk_selection` carries out."""

    context_length: int
    config: ChunkSelectConfig

    def pieces(self, prompt: np.ndarray, room: int) -> list[np.ndarray]:
        """prompt: (n,) ids; room: tokens of the answer -> the pieces, or the prompt itself where it fits into
        context_length.

        Every token of the prompt is in a piece, and all pieces have the same length. Raises EpisodeError where a
        chunk would be no longer than the overlap.
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


class ChunkSelect(Extension[ChunkSelectConfig]):
    """Answer from one piece of the prompt."""

    Config = ChunkSelectConfig
    trainable = False
    selects_prompt = True

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """See Extension; applicable to every model. Raises ConfigError for parts that exceed the training length."""
        c = self.config
        require(
            "pe.extend.tail",
            c.tail,
            c.head + c.tail + c.overlap < context.context_length,
            f"head + tail + overlap below the training length ({context.context_length})",
        )
        return super().not_applicable(model, context)

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Set `model.selection`; the model itself is unchanged."""
        model.selection = PromptChunks(context.context_length, self.config)
