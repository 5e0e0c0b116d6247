"""Open a model of transformers from a local folder: the classes that come with transformers, weights without pickled
code, every tensor accounted for.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from lcprobe.errors import CheckpointError, ConfigError, nearest_name, shorten
from lcprobe.probing.engines.self_test import settle
from lcprobe.probing.engines.transformers import TransformersModel
from lcprobe.probing.engines.transformers_weights import check_finite, check_report, checked_weights

WIDEST = 200
"""Characters of an error of transformers that are shown."""


def transformers_model(
    folder: Path, dtype: torch.dtype, device: torch.device | str, split: bool = False
) -> TransformersModel:
    """The causal language model in a folder (config.json and weights), tested; its `note` is also logged.

    dtype: of its weights. split: spread its layers over all GPUs of the machine, whatever `device` is. Raises
    ConfigError for a model type that transformers does not have or for which it would run code of the folder, and
    where a package is missing; CheckpointError for files that are damaged or hold code, for tensors that are missing,
    left over, misshapen or not finite, and for weights that do not fit.
    """
    if find_spec("transformers") is None:
        raise ConfigError(str(folder), "a model of transformers", "after: pip install 'lcprobe[hf]'")
    if split:
        _require_split(folder)
    with _only_torch(), _quiet():
        _check_type(folder)
        model = _loaded(folder, dtype, "balanced" if split else None)
        try:
            model = TransformersModel(model if split else model.to(device))
            settle(model, folder.name)
        except torch.OutOfMemoryError:
            raise _too_large(folder, dtype) from None
    return model


def empty_model(folder: Path) -> Any:
    """The model of a folder on the meta device, without weights: its class and its parameters' shapes. Raises as
    `transformers_model` for its type."""
    if find_spec("transformers") is None:
        raise ConfigError(str(folder), "a model of transformers", "after: pip install 'lcprobe[hf]'")
    with _only_torch(), _quiet():
        _check_type(folder)
        from transformers import AutoConfig, AutoModelForCausalLM

        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))


def require_vocabulary(name: str, tokenizer_size: int, model: TransformersModel) -> None:
    """Raises ConfigError for a tokenizer with ids for which the model has no embedding."""
    if tokenizer_size > model.vocab_size:
        given = f"a tokenizer with ids up to {tokenizer_size - 1}"
        raise ConfigError(name, given, f"ids below {model.vocab_size}, the rows of the model's embedding")


def _check_type(folder: Path) -> None:
    """Raises for a config.json that is missing or damaged, or of a type that transformers has no causal class for."""
    from transformers import AutoConfig, __version__
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as known

    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(str(folder), "no config.json", "a folder with config.json and weights") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not a JSON file ({error}); allowed: the file as it was published") from None
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or kind not in known:
        allowed = f"a type with a causal model in transformers {__version__} ({len(known)} types)"
        if isinstance(config, dict) and config.get("auto_map"):
            allowed += "; this one brings code of its own (auto_map), which is never run"
        raise ConfigError(f"{path}: model_type", kind, allowed, nearest_name(kind, known))
    try:
        AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever a class raises for its settings
        raise CheckpointError(f"{path}: {_line(error)}; allowed: settings of {kind}") from None


def _loaded(folder: Path, dtype: torch.dtype, device_map: str | None) -> Any:
    """The model with its weights."""
    from transformers import AutoModelForCausalLM

    load: Any = AutoModelForCausalLM.from_pretrained  # typed as if it never returned a report
    stored = checked_weights(folder)
    given: dict[str, Any] = {} if device_map is None else {"device_map": device_map}
    try:
        model, report = load(
            folder,
            dtype=dtype,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report, by name, and refused
            **given,
        )
    except torch.OutOfMemoryError:
        raise _too_large(folder, dtype) from None
    except Exception as error:  # OSError, RuntimeError, SafetensorError, UnpicklingError, ...
        file = next(iter(sorted(folder.glob("pytorch_model*.bin"))), None)
        if file is None or not isinstance(error, UnpicklingError):
            raise CheckpointError(f"{folder}: {_line(error)}; allowed: weights as they were published") from None
        code = re.search(r"GLOBAL (\S+)", str(error))
        fault = f"refused: a pickle with code ({code[1]})" if code else "not a file of tensors alone, or damaged"
        raise CheckpointError(f"{file}: {fault}; allowed: tensors by name") from None
    check_report(folder, report, stored)
    if any(p.is_meta for p in model.parameters()):
        raise _too_large(folder, dtype)
    check_finite(folder, model, stored)
    return model


def _require_split(folder: Path) -> None:
    if find_spec("accelerate") is None:
        raise ConfigError(str(folder), "layers over several GPUs", "after: pip install 'lcprobe[hf,split]'")
    if torch.cuda.device_count() < 2:
        raise ConfigError(str(folder), f"layers over {torch.cuda.device_count()} GPUs", "at least 2 GPUs")


def _too_large(folder: Path, dtype: torch.dtype) -> CheckpointError:
    name = str(dtype).removeprefix("torch.")
    return CheckpointError(f"{folder}: weights in {name} do not fit into memory; allowed: bfloat16, or more GPUs")


def _line(error: BaseException) -> str:
    return shorten(" ".join(str(error).split()), WIDEST) or type(error).__name__


@contextmanager
def _only_torch() -> Iterator[None]:
    """Without a GPU, transformers' classes find flash-linear-attention not installed: imported beside it, they choose
    kernels that need one."""
    hide = not torch.cuda.is_available() and "fla" not in sys.modules
    if hide:
        sys.modules["fla"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hide:
            sys.modules.pop("fla", None)


@contextmanager
def _quiet() -> Iterator[None]:
    """transformers' progress bars and warnings stay away; what matters of them is in errors and notes."""
    from transformers.utils import logging as theirs

    level, bars = theirs.get_verbosity(), theirs.is_progress_bar_enabled()
    theirs.set_verbosity(logging.CRITICAL)
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.set_verbosity(level)
        if bars:
            theirs.enable_progress_bar()
