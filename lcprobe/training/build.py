"""The model of a run as it is trained: its architecture, the extension of `train.extend`, and the encodings that it
has at a step. Everything that trains, resumes, checks or loads a run builds its model here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch

from lcprobe.errors import ConfigError
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend.contract import Extension, ExtensionContext, extended
from lcprobe.models.language_model import LanguageModel
from lcprobe.training.checkpoint import Progress, load_model, load_progress
from lcprobe.training.config import TrainConfig


def build_model(config: ModelConfig, train: TrainConfig, step: int = 0) -> LanguageModel:
    """A run's model with the encodings that it has at a step, without weights. Raises ConfigError for an extension
    that does not apply to it."""
    model = LanguageModel(config)
    if train.extend is not None:
        original, factor = train.extend.original_length, train.extend.factor
        assert original is not None, "planning sets the length that is extended"
        assert factor is not None, "planning sets the factor"
        extension: Extension = train.extend.choice.create()
        with _named_as_training():
            model = extended(model, extension, ExtensionContext(original, factor))
    set_encodings_at(model, train, step)
    return model


def build_to_train(config: ModelConfig, train: TrainConfig) -> LanguageModel:
    """A run's model without weights, as `divide_model` takes it: on the meta device where processes have parts of it,
    so that no process has the whole in its memory."""
    with torch.device("meta") if train.divided_as in ("fsdp2", "tp") else nullcontext():
        model = build_model(config, train)
    if any(True for _ in model.buffers()):  # peers' layers, which compute tables when they are built
        return build_model(config, train)
    return model


def load_trained(checkpoint: Path, config: ModelConfig, train: TrainConfig) -> tuple[LanguageModel, Progress]:
    """A run's model as it was at a checkpoint, and how far the run was. Raises CheckpointError for other weights."""
    progress = load_progress(checkpoint)
    model = build_model(config, train, progress.step)
    load_model(checkpoint, model)
    return model, progress


def set_encodings_at(model: LanguageModel, config: TrainConfig, step: int) -> bool:
    """Give the model its positional encodings at a step, in place. Returns whether they are those after
    `train.switch`."""
    if config.switch is None or config.switch_step is None or step < config.switch_step:
        return False
    model.set_positional(config.switch.positional, "train.switch")
    return True


@contextmanager
def repeated_gradients(config: TrainConfig) -> Iterator[None]:
    """What is chosen and computed inside has gradients that repeat to the bit, where `train.deterministic` asks."""
    if not config.deterministic:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it is first called
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@contextmanager
def _named_as_training() -> Iterator[None]:
    """Errors of extensions name `train.extend` in place of `pe.extend`."""
    try:
        yield
    except ConfigError as error:
        key = error.key.replace("pe.extend", "train.extend", 1)
        raise type(error)(key, error.given, error.allowed, error.near) from None
