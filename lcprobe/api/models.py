"""A trained checkpoint as an object: generate text, read hidden states, and what a probe needs of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import tokenizers
import torch
import yaml
from torch import Tensor

from lcprobe.config import Config
from lcprobe.data.prepare import prepare
from lcprobe.errors import ConfigError, listed, require
from lcprobe.files import has_weights
from lcprobe.models.checkpoints.export import export
from lcprobe.models.checkpoints.known import FACTS_FILE
from lcprobe.models.extend.config import AS_TRAINED, ExtendConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.probing.engines.narrow import in_precision
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.probing.sharing.work import ProbedCheckpoint
from lcprobe.schema import build
from lcprobe.studies.evaluation.targets import ProbeTarget, find_targets
from lcprobe.studies.evaluation.variants import load_variant, variants_of
from lcprobe.tasks.text.haystack import Materials
from lcprobe.tasks.text.tokenizer import NO_BOS, Tokenizer, load_tokenizer


@dataclass(frozen=True)
class Model:
    """A checkpoint, loaded for evaluation.

    name: of its run, and the label of an extension: `mamba2`, `rope+yarn`. module: the LanguageModel. checkpoint:
    what records say about it (digest of the weights, steps and tokens trained on). config: of its run. trained_on:
    digest of its text, "" where it is not known.
    """

    name: str
    module: LanguageModel
    checkpoint: ProbedCheckpoint
    config: Config
    device: str
    trained_on: str = ""

    @property
    def context_length(self) -> int:
        """Tokens of the training sequences."""
        return self.config.train.context_length

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the model was trained with."""
        return load_tokenizer(self.config.data.tokenizer, self.config.data.bos)

    @cached_property
    def materials(self) -> Materials:
        """Tokenizer and held-out text of its corpus, which is prepared where it is not there yet. Raises DataError,
        ConfigError."""
        return prepare(self.config.data, trained_on=self.trained_on).materials("probe")

    @overload
    def generate(self, prompts: str, max_tokens: int = 32, stop: str | None = None) -> str: ...
    @overload
    def generate(self, prompts: Sequence[str], max_tokens: int = 32, stop: str | None = None) -> list[str]: ...
    def generate(
        self, prompts: str | Sequence[str], max_tokens: int = 32, stop: str | None = None
    ) -> str | list[str]:
        """Greedy continuations, in the order of the prompts; one string for one string.

        stop: a string that ends a continuation, and is not part of it. Raises ConfigError for an empty prompt under a
        tokenizer without BOS, and for more tokens than the model has positions for.
        """
        require("max_tokens", max_tokens, max_tokens >= 1, ">= 1")
        require("stop", stop, stop != "", "a string that is not empty, or None")
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        ids = [self.encode(text) for text in texts]
        probe = self.config.probe
        continuer = Continuer(
            in_precision(self.module, probe.precision), self.device, probe.chunk, probe.batch_tokens
        )

        def done(_: int, tokens: list[int]) -> bool:
            return stop is not None and stop in self.tokenizer.decode(np.array(tokens))

        out = [
            self.tokenizer.decode(np.array(tokens)) for tokens in continuer.greedy(ids, [max_tokens] * len(ids), done)
        ]
        out = [text if stop is None else text.partition(stop)[0] for text in out]
        return out[0] if isinstance(prompts, str) else out

    @torch.inference_mode()
    def hidden_states(self, text: str | Sequence[int]) -> Tensor:
        """(n_layers + 1, seqlen, d_model) float32 on the CPU: the residual stream after the embedding and after each
        block.

        text: a string, encoded with BOS, or token ids. The last entry is before the final norm.
        """
        ids = self.encode(text) if isinstance(text, str) else np.asarray(text, dtype=np.int64)
        require("text", text, len(ids) > 0, "at least one token")
        tokens = torch.from_numpy(ids)[None].to(self.device)
        length = len(ids) if self.module.needs_length else None
        stream, _ = self.module.hidden_states(tokens, length=length)
        return torch.cat(stream).float().cpu()

    def export(self, format: str | Mapping[str, Any], folder: str | Path) -> None:
        """Write the weights as a checkpoint of another project, with the tokenizer and what `evaluate.py` must know:
        `mamba_ssm`, `hf_llama`, `hf_mamba2`, ...

        folder: appears whole or not at all. Raises ConfigError for a folder that is not empty, for a model that the
        format cannot express, naming the setting, and for one that an extension or a fault has changed.
        """
        own = self.checkpoint
        as_trained = own.extension == "none" and not own.compat.active
        require("extend", own.extension, as_trained, "a model as trained: formats have no place for changes")
        export(self.module, format, Path(folder), self._beside())

    def _beside(self) -> dict[str, str]:
        """Files beside exported weights, by name."""
        bos_id = self.tokenizer.bos_id
        bos = None if bos_id is None else tokenizers.Tokenizer.from_str(self.tokenizer.json_text).id_to_token(bos_id)
        facts = {"bos": NO_BOS if bos is None else bos, "context_length": self.context_length,
                 "context_length_from": "its training", "tokens": self.checkpoint.tokens}  # fmt: skip
        named = {"tokenizer_class": "PreTrainedTokenizerFast", **({} if bos is None else {"bos_token": bos})}
        return {
            "tokenizer.json": self.tokenizer.json_text,
            "tokenizer_config.json": json.dumps(named),
            FACTS_FILE: yaml.safe_dump(facts, sort_keys=False),
        }

    def encode(self, text: str) -> np.ndarray:
        """(n,) int64 token ids, after BOS where the tokenizer has one."""
        ids, bos = self.tokenizer.encode(text), self.tokenizer.bos_id
        return ids if bos is None else np.concatenate([[bos], ids])


def load_checkpoint(
    folder: str | Path,
    *,
    extend: str | Mapping[str, Any] | None = None,
    factor: float | None = None,
    device: str = "auto",
) -> Model:
    """Load a checkpoint folder, or the newest checkpoint of a run's folder.

    extend: a method of `pe.extend` and its settings, `"yarn"` or `{"type": "yarn", "ramp": "rotations"}`, applied at
    evaluation. factor: times the training length that it reaches for; None: what each length needs. device: `auto` is
    cuda where there is one. Raises ConfigError for another folder and for a method that does not apply,
    CheckpointError for a damaged checkpoint.
    """
    path = Path(folder)
    known = has_weights(path) or (path / "checkpoints").is_dir() or (path / "study.yaml").is_file()
    require("folder", str(folder), known, "a checkpoint's folder, or a run's folder (train.py makes one)")
    targets = find_targets([path])
    if len(targets) > 1:
        raise ConfigError("folder", str(folder), f"one run: {listed(target.name for target in targets)}")
    return load_target(targets[0], extend, factor, device)


def checked_device(name: str) -> str:
    """A device of this machine; `auto` is cuda where there is one. Raises ConfigError for another name."""
    works = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    if name == "auto":
        return works[-1]
    require("device", name, name.partition(":")[0] in works, f"auto | {' | '.join(works)} here")
    return name


def load_target(
    target: ProbeTarget, extend: str | Mapping[str, Any] | None, factor: float | None, device: str
) -> Model:
    """The model of a target, see `load_checkpoint`."""
    require("extend", extend, extend is None or isinstance(extend, str | Mapping), "one method: a name, or a mapping")
    require("factor", factor, factor is None or extend is not None, "None without `extend`")
    device = checked_device(device)
    settings = {"extend": AS_TRAINED if extend is None else extend, "factor": "auto" if factor is None else factor}
    pe = build(ExtendConfig, settings, "pe")
    variant = variants_of([target], pe)[0][-1]
    trained_on = target.source.progress.corpus_digest
    calibrates = variant.extension is not None  # or may, on text
    data = prepare(target.config.data, trained_on=trained_on) if calibrates else None
    loaded, checkpoint = load_variant(variant, device, data)
    if loaded.module is None:
        raise ConfigError("folder", str(target.source.path), "a model of lcprobe's own mixers")
    return Model(variant.name, loaded.module, checkpoint, target.config, device, trained_on)
