"""Which layers processes can share, and settings of a run that this excludes."""

from collections.abc import Mapping

from lcprobe.errors import ConfigError, require
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.mixers.contract import Mixer
from lcprobe.models.mlps.contract import MLP
from lcprobe.models.tensor_parallel.split import Split
from lcprobe.training.config import TrainConfig

OF_HEADS = ("noise", "fitted")
"""Initial states that are drawn for all heads of a layer at once."""


def check_division(config: TrainConfig, model: LanguageModel) -> None:
    """Raises ConfigError for settings, heads and widths that do not go with train.tensor_parallel. The model may be
    on the meta device."""
    n = config.tensor_parallel
    if n == 1:
        return
    initial = config.initial_state
    given = None if initial is None else initial.name
    require(
        "train.initial_state", given, given not in OF_HEADS, f"passed | preceding | null, with tensor_parallel {n}"
    )
    require("train.switch", "set", config.switch is None, f"null, with tensor_parallel {n}")
    if not shared_layers(model, n):
        raise ConfigError("train.tensor_parallel", n, "1: no layer of this model can be shared")


def shared_layers(model: LanguageModel, n: int) -> list[tuple[str, Mixer | MLP, Mapping[str, Split]]]:
    """(name, layer, how its parameters are divided) of each layer that n processes can share; all have the others.
    Raises ConfigError where heads or widths do not divide."""
    found = []
    for name, module in model.named_modules():
        if isinstance(module, Mixer | MLP) and not _is_normed_with_others(model, name):
            splits = module.tensor_splits(n)
            found += [(name, module, splits)] if splits else []
    return found


def _is_normed_with_others(model: LanguageModel, name: str) -> bool:
    """Whether a layer is a mixer of a block that norms the outputs of several before their sum: over all widths."""
    block, _, own = name.removeprefix("blocks.").partition(".")
    return own.startswith(("mixer", "beside")) and model.get_submodule(f"blocks.{block}").combine is not None
