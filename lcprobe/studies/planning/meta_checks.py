"""Checks of models before anything is written: each distinct model is built once on the meta device."""

from collections.abc import Mapping

import torch

from lcprobe.config import Config
from lcprobe.errors import ConfigError, require
from lcprobe.files import digest_json
from lcprobe.schema import plain
from lcprobe.training.build import build_model, set_encodings_at
from lcprobe.training.initial_state import initial_state_of
from lcprobe.training.strategies.checks import check_division

Shapes = Mapping[str, tuple[int, ...]]


class MetaModels:
    """Shapes of parameters by model; equal models are built once."""

    def __init__(self) -> None:
        self._known: dict[str, Shapes] = {}

    def shapes(self, config: Config) -> Shapes:
        """Shapes of the parameters of a run's model. Raises ConfigError for a model that cannot be trained as
        configured."""
        of_training = ("context_length", "initial_state", "extend", "switch", "probe_every")
        names = (*of_training, "context_parallel", "tensor_parallel")
        settings = [getattr(config.train, name) for name in names]
        key = digest_json(plain([config.model, config.probe.while_training, *settings]))
        if key not in self._known:
            self._known[key] = _checked(config)
        return self._known[key]


def _checked(config: Config) -> Shapes:
    train = config.train
    with torch.device("meta"):
        model = build_model(config.model, train)
        length, limit = train.context_length, model.max_length
        require(
            "train.context_length",
            length,
            limit is None or length <= limit,
            f"<= {limit}, the model's maximum length",
        )
        if model.positions is not None:
            drawn = model.positions.config.max_length
            require("model.positions.max_length", drawn, drawn >= length, f">= train.context_length ({length})")
        grid = config.probe.while_training
        if grid is not None and train.probe_every != 0 and limit is not None:
            longest = max(grid.tokens([length]))
            require(
                "probe.while_training.lengths",
                longest,
                longest <= limit,
                f"<= {limit} tokens, the model's maximum length",
            )
        check_division(train, model)
        if train.initial_state is not None:
            initial_state_of(train.initial_state, model)
        if train.context_parallel > 1:
            model.check_context_parallel("train.context_parallel", train.context_parallel)
        if train.switch is not None:
            set_encodings_at(model, train, train.steps)
    return {name: tuple(p.shape) for name, p in model.named_parameters()}


def check_start(source: str, available: Shapes, wanted: Shapes) -> None:
    """Raises ConfigError unless a run's parameters have the names and shapes of those of `source`, the run that it
    starts from."""
    if available == wanted:
        return
    name = next(n for n in [*wanted, *available] if available.get(n) != wanted.get(n))
    given = f"{source}, {'without' if name not in available else 'with'} {name}"
    if name in available and name in wanted:
        given += f" of {'x'.join(map(str, available[name]))}, here {'x'.join(map(str, wanted[name]))}"
    raise ConfigError("train.from", given, "a run with the same parameters; encodings without parameters may differ")
