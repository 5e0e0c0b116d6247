"""Models of which only the shape is known: runs that are not trained yet, published checkpoints that are not here."""

from dataclasses import dataclass
from pathlib import Path

import torch

from lcprobe.config import Config
from lcprobe.errors import CheckpointError
from lcprobe.models.checkpoints.known import CheckpointFacts
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.parts import ModelCost, model_cost
from lcprobe.probing.config import Precision
from lcprobe.studies.evaluation.sources import Loaded, Source
from lcprobe.training.checkpoint import Progress


@dataclass(frozen=True)
class ShapeOnly(Source):
    """A source that can be planned with, and not loaded. path: where the weights will be, for messages; note: on what
    the plan takes for granted."""

    path: Path
    model: ModelConfig
    published: CheckpointFacts | None = None
    note: str = ""

    @property
    def progress(self) -> Progress:
        """None yet."""
        return Progress()

    @property
    def digest(self) -> str:
        """There are no weights."""
        return ""

    def layout(self, config: Config) -> str:
        """See Source."""
        return self.model.layout

    def meta_model(self, config: Config) -> LanguageModel:
        """See Source."""
        with torch.device("meta"):
            return LanguageModel(self.model)

    def cost(self, config: Config) -> ModelCost:
        """See Source."""
        return model_cost(self.model, config.train.context_length)

    def load(self, config: Config, device: str, weights: Precision) -> Loaded:
        """Raises CheckpointError."""
        raise CheckpointError(f"{self.path}: only the shape is known; allowed: --plan")
