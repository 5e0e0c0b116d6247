"""Where the weights of a probed model come from: a checkpoint of ours, published files, or a server.

A source answers what planning and the report ask of a model before it is loaded, and loads it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from lcprobe.config import Config
from lcprobe.models.checkpoints.known import CheckpointFacts
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.parts import ModelCost, model_cost, parts_of
from lcprobe.probing.config import Precision
from lcprobe.probing.engines.contract import Continuations, ProbedModel
from lcprobe.training.build import build_model, load_trained
from lcprobe.training.checkpoint import Progress, load_progress
from lcprobe.training.tensors.consolidate import weights_digest


@dataclass(frozen=True)
class Loaded:
    """A model that is ready: an engine here, or a server.

    module: ours, which methods of `pe.extend` and biases need; None: another engine's. note: how it reads, where that
    is worth a line of the report. reference: loads the same weights as a server has; None: there is none.
    """

    engine: ProbedModel | None
    module: LanguageModel | None = None
    note: Callable[[], str] = lambda: ""
    remote: Continuations | None = None
    reference: "Callable[[], Loaded] | None" = None

    @property
    def server(self) -> Continuations:
        """The server of a model that has no engine here."""
        assert self.remote is not None, "a model is loaded here, or a server has it"
        return self.remote


class Source(ABC):
    """Where a model's weights come from. path: as messages name it."""

    path: Path
    run_folder: Path | None = None
    progress: Progress
    """How far it was trained, and on what; empty digests where that is not known."""
    digest: str
    """Digest of the weights, 16 hexadecimal digits."""
    engine: str = "native"
    """Engine that runs it, as records name it."""
    served: bool = False
    """Whether a server has it, which gives no state."""
    published: CheckpointFacts | None = None
    """What is known of a published checkpoint; None: trained here."""
    vocab_size: int | None = None
    """Rows of the embedding of a published checkpoint, which the ids of its tokenizer must fit; None: unknown."""

    @abstractmethod
    def layout(self, config: Config) -> str:
        """Its blocks in words, as model.layout where it has one."""

    @abstractmethod
    def meta_model(self, config: Config) -> LanguageModel | None:
        """The model on the meta device; None for one that is not of our mixers."""

    def max_length(self, config: Config) -> int | None:
        """Tokens that its table of positions has; None: no limit."""
        model = self.meta_model(config)
        return None if model is None else model.max_length

    @abstractmethod
    def cost(self, config: Config) -> ModelCost:
        """Its parameters, FLOPs and state at its training length."""

    def cost_at(self, config: Config, length: int) -> ModelCost:
        """Its cost at any length."""
        return model_cost(config.model, length)

    def n_blocks(self, config: Config) -> int:
        """Blocks that can be on different devices."""
        return len(parts_of(config.model).blocks)

    def knows_state(self, config: Config) -> bool:
        """Whether `cost_at` has the size of its state."""
        return True

    @abstractmethod
    def load(self, config: Config, device: str, weights: Precision, split: bool) -> Loaded:
        """The model, ready for inference. split: its layers will be spread over several devices, or are. Raises
        CheckpointError."""


@dataclass(frozen=True)
class TrainedCheckpoint(Source):
    """A checkpoint that train.py wrote. run_folder: of its run; None: the checkpoint is not in one."""

    path: Path
    run_folder: Path | None

    @cached_property
    def progress(self) -> Progress:
        """See Source."""
        return load_progress(self.path)

    @cached_property
    def digest(self) -> str:
        """See Source."""
        return weights_digest(self.path)[:16]

    def layout(self, config: Config) -> str:
        """See Source."""
        return config.model.layout

    def meta_model(self, config: Config) -> LanguageModel:
        """With the encodings that it has at its checkpoint's step."""
        with torch.device("meta"):
            return build_model(config.model, config.train, self.progress.step)

    def cost(self, config: Config) -> ModelCost:
        """See Source."""
        return model_cost(config.model, config.train.context_length)

    def load(self, config: Config, device: str, weights: Precision, split: bool) -> Loaded:
        """In float32, as it was trained."""
        module = load_trained(self.path, config.model, config.train)[0].to(device).eval()
        return Loaded(module, module)
