"""Published models as sources of weights: on lcprobe's own mixers, run by transformers, or on a server."""

from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from lcprobe.config import Config
from lcprobe.files import digest_json
from lcprobe.models.checkpoints.files import digest_weights, weight_files
from lcprobe.models.checkpoints.known import CheckpointFacts
from lcprobe.models.checkpoints.load import PublishedFolder, load_published
from lcprobe.models.cost import Cost
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.parts import ModelCost, model_cost
from lcprobe.probing.config import Precision, ServerConfig
from lcprobe.probing.engines.servers import server as open_server
from lcprobe.schema import plain
from lcprobe.studies.evaluation.costs.attention_layers import attention_cost
from lcprobe.studies.evaluation.sources import Loaded, Source
from lcprobe.tasks.text.tokenizer import Tokenizer
from lcprobe.training.checkpoint import Progress

DTYPES = {"32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class NativeCheckpoint(Source):
    """A published checkpoint whose format is known: it runs on our own mixers."""

    path: Path
    folder: PublishedFolder
    published: CheckpointFacts = field(default_factory=CheckpointFacts)

    @property
    def vocab_size(self) -> int | None:  # type: ignore[override]
        """See Source."""
        return self.folder.model.vocab_size

    @property
    def progress(self) -> Progress:
        """See Source."""
        return Progress(tokens=self.published.tokens)

    @cached_property
    def digest(self) -> str:
        """Of its weight files, and of the model that config.json and settings make of them."""
        return digest_json([self.folder.digest(), plain(self.folder.model)])[:16]

    def layout(self, config: Config) -> str:
        """See Source."""
        return self.folder.model.layout

    def meta_model(self, config: Config) -> LanguageModel:
        """See Source."""
        with torch.device("meta"):
            return LanguageModel(self.folder.model)

    def cost(self, config: Config) -> ModelCost:
        """See Source."""
        return self.cost_at(config, config.train.context_length)

    def cost_at(self, config: Config, length: int) -> ModelCost:
        """See Source."""
        return model_cost(self.folder.model, length)

    def load(self, config: Config, device: str, weights: Precision, split: bool) -> Loaded:
        """See Source."""
        module = load_published(self.folder, DTYPES[weights], device).eval()
        return Loaded(module, module)


@dataclass(frozen=True)
class TransformersCheckpoint(Source):
    """A published checkpoint that transformers runs."""

    path: Path
    config_json: dict[str, Any]
    published: CheckpointFacts = field(default_factory=CheckpointFacts)
    engine: str = "transformers"

    @property
    def vocab_size(self) -> int | None:  # type: ignore[override]
        """See Source; of a model with several parts, that of its text model."""
        text = self.config_json.get("text_config")
        size = {**self.config_json, **(text if isinstance(text, dict) else {})}.get("vocab_size")
        return size if isinstance(size, int) else None

    @property
    def progress(self) -> Progress:
        """See Source."""
        return Progress(tokens=self.published.tokens)

    @cached_property
    def digest(self) -> str:
        """Of its weight files and config.json."""
        return digest_json([digest_weights(weight_files(self.path)), self.config_json])[:16]

    def layout(self, config: Config) -> str:
        """The class, as config.json names it."""
        return ", ".join(self.config_json.get("architectures") or [self.config_json.get("model_type", "unknown")])

    def meta_model(self, config: Config) -> None:
        """It is not of our mixers."""

    def max_length(self, config: Config) -> int | None:
        """See Source."""
        from lcprobe.probing.engines.transformers import TransformersModel

        return TransformersModel(self._empty).max_length

    @cached_property
    def _empty(self) -> Any:
        """The model without weights."""
        from lcprobe.probing.engines.transformers_folder import empty_model

        return empty_model(self.path)

    @cached_property
    def _sizes(self) -> tuple[int, int]:
        """Parameters, and those of embedding and head."""
        model = self._empty
        ends = [end for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None]
        outer = {id(p): p.numel() for end in ends for p in end.parameters()}  # tied ones once
        return sum(p.numel() for p in model.parameters()), sum(outer.values())

    def cost(self, config: Config) -> ModelCost:
        """Parameters as built; two FLOPs for each of them and token, without attention's; the size of the state is
        not known."""
        total, embedding = self._sizes
        blocks = total - embedding
        head = self._empty.get_output_embeddings()
        rows = embedding if head is None else sum(p.numel() for p in head.parameters())
        return ModelCost(embedding, Cost(params=blocks, flops=2.0 * blocks), 2.0 * rows)

    def cost_at(self, config: Config, length: int) -> ModelCost:
        """That of its parameters, and an estimate for its attention, where its config tells."""
        cost, attention = self.cost(config), self._attention(length)
        return cost if attention is None else replace(cost, blocks=cost.blocks + attention)

    def n_blocks(self, config: Config) -> int:
        """Its layers."""
        layers = self._settings[0].get("num_hidden_layers")
        return layers if isinstance(layers, int) else 1

    def knows_state(self, config: Config) -> bool:
        """Whether its config tells the size of its cache."""
        return self._attention(1) is not None

    @cached_property
    def _settings(self) -> tuple[dict[str, Any], list[str] | None]:
        """The settings of its text model, and the types of its layers, where its class has some."""
        from lcprobe.probing.engines.transformers import TransformersModel

        text = self._empty.config.get_text_config()
        known = dir(text)  # properties in some classes, entries of config.json in others
        types = [getattr(text, name) for name in ("layer_types", "layers_block_type") if name in known]
        return TransformersModel(self._empty).settings, next(filter(None, types), None)

    def _attention(self, length: int) -> Cost | None:
        return attention_cost(*self._settings, length)

    def load(self, config: Config, device: str, weights: Precision, split: bool) -> Loaded:
        """See Source."""
        from lcprobe.probing.engines.transformers_folder import transformers_model

        model = transformers_model(self.path, DTYPES[weights], device, split)
        return Loaded(model, note=lambda: model.note.removeprefix(f"{self.path.name}: "))


@dataclass(frozen=True)
class ServedModel(Source):
    """A model on a server of the completions API. kind: `vllm` or `openai`; reference: the same weights here, which
    it is compared with before anything is probed."""

    path: Path
    kind: str
    url: str
    server: ServerConfig
    tokenizer: Tokenizer
    published: CheckpointFacts = field(default_factory=CheckpointFacts)
    reference: Source | None = None

    served = True

    @property
    def engine(self) -> str:  # type: ignore[override]
        """See Source."""
        return self.kind

    @property
    def progress(self) -> Progress:  # type: ignore[override]
        """See Source."""
        return Progress(tokens=self.published.tokens)

    @cached_property
    def digest(self) -> str:  # type: ignore[override]
        """Of its address and name, and of the reference's weights: a server does not tell which weights it has."""
        known = None if self.reference is None else self.reference.digest
        return digest_json([self.kind, self.url, self.server.model, known])[:16]

    def layout(self, config: Config) -> str:
        """The reference's."""
        return f"{self.kind} server" if self.reference is None else self.reference.layout(config)

    def meta_model(self, config: Config) -> None:
        """Its weights are elsewhere."""

    def cost(self, config: Config) -> ModelCost:
        """The reference's; nothing is known without."""
        return ModelCost(0, Cost(), 0.0) if self.reference is None else self.reference.cost(config)

    def cost_at(self, config: Config, length: int) -> ModelCost:
        """The reference's; nothing is known without."""
        return self.cost(config) if self.reference is None else self.reference.cost_at(config, length)

    def n_blocks(self, config: Config) -> int:
        """Its devices are elsewhere."""
        return 1

    def knows_state(self, config: Config) -> bool:
        """Its memory is elsewhere."""
        return False

    def max_length(self, config: Config) -> int | None:
        """The reference's."""
        return None if self.reference is None else self.reference.max_length(config)

    def load(self, config: Config, device: str, weights: Precision, split: bool) -> Loaded:
        """See Source."""
        served, reference = open_server(self.kind, self.url, self.tokenizer, self.server), self.reference
        load = None if reference is None else partial(reference.load, config, device, weights, split)
        return Loaded(None, note=lambda: served.note, remote=served, reference=load)
