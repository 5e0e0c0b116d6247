"""Tokenizers by a name on the Hugging Face hub: where they lie when they were used before, how they are fetched, and
how many ids the well-known ones have, so that a plan needs no network.
"""

import logging
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path

from lcprobe.errors import ConfigError, LcprobeError
from lcprobe.hub import hub_error, hub_is_unreachable

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
ALONE = ("gpt2", "distilgpt2")
"""Names on the hub that have no owner before them."""
log = logging.getLogger(__name__)

VOCABULARIES = {
    32000: (
        "meta-llama/Llama-2-*", "huggyllama/llama-*", "openlm-research/open_llama_*", "princeton-nlp/Sheared-LLaMA-*",
        "TinyLlama/TinyLlama-1.1B-intermediate-*", "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.1", "mistralai/Mistral-7B-Instruct-v0.2",
        "mistralai/Mixtral-8x7B-*",
    ),
    32768: ("mistralai/Mistral-7B-v0.3", "mistralai/Mistral-7B-Instruct-v0.3"),
    49152: ("bigcode/starcoder*", "HuggingFaceTB/SmolLM-*", "HuggingFaceTB/SmolLM2-*"),
    50257: (
        "gpt2", "distilgpt2", "openai-community/gpt2*", "distilbert/distilgpt2", "EleutherAI/gpt-neo-*",
        "roneneldan/TinyStories-*", "cerebras/Cerebras-GPT-*",
    ),
    50277: ("EleutherAI/gpt-neox-20b", "EleutherAI/pythia-*", "state-spaces/mamba-*-hf"),
    50295: ("microsoft/phi-1", "microsoft/phi-1_5", "microsoft/phi-2"),
    65024: ("tiiuae/falcon-7b*", "tiiuae/falcon-40b*"),
    128256: (
        "meta-llama/Meta-Llama-3-*", "meta-llama/Meta-Llama-3.1-*", "meta-llama/Llama-3.1-*",
        "meta-llama/Llama-3.2-1B*", "meta-llama/Llama-3.2-3B*", "meta-llama/Llama-3.3-*",
    ),
    131072: ("mistralai/Mistral-Nemo-*",),
    151646: ("Qwen/Qwen1.5-*", "Qwen/Qwen2-[0-9]*"),
    151665: ("Qwen/Qwen2.5-[0-9]*",),
    151669: ("Qwen/Qwen3-[0-9]*",),
    250680: ("bigscience/bloom*",),
    256000: ("google/gemma-2b*", "google/gemma-7b*", "google/gemma-2-*", "google/recurrentgemma-*"),
}  # fmt: skip
"""One more than the largest id of tokenizers, added tokens included, by names on the hub; * stands for any rest.

This is what a tokenizer.json says (`len(tokenizer)`), not the rows of a model's embedding, which are often padded:
GPT-NeoX's 50,277 to 50,288 in Mamba and 50,304 in Pythia, Qwen2.5's 151,665 to 152,064. Names whose repository has no
tokenizer.json (state-spaces/mamba-130m, RWKV World) are not here: training could not read them by name.
"""


def is_hub_name(source: str) -> bool:
    """Whether a name may be one on the hub: ORG/NAME, or a well-known one without owner."""
    return source in ALONE or bool(HUB_NAME.fullmatch(source) and not source.endswith(".json"))


def known_vocabulary(name: str) -> int | None:
    """How many ids a well-known tokenizer has; None for any other."""
    for size, names in VOCABULARIES.items():
        if any(fnmatchcase(name, pattern) for pattern in names):
            return size
    return None


def planned_vocabulary(name: str) -> int:
    """`known_vocabulary` for a plan. Raises ConfigError, saying what to do, for a tokenizer that is not known."""
    size = known_vocabulary(name)
    if size is None:
        allowed = (
            "a tokenizer.json, a folder with one, a well-known name, or its ids in model.vocab_size=... (a plan "
        )
        raise ConfigError("data.tokenizer", name, f"{allowed}asks no network)")
    return size


def check_planned(name: str, rows: int | None) -> None:
    """Raises ConfigError as `planned_vocabulary` where a plan would. rows: model.vocab_size."""
    if rows is None and is_hub_name(name) and not os.path.exists(name) and cached(name) is None:
        planned_vocabulary(name)


def cached(name: str) -> Path | None:
    """The tokenizer.json that was fetched before, as the cache of huggingface_hub has it; None where it has none."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(name, "tokenizer.json")
    return Path(found) if isinstance(found, str) else None


def fetch(name: str) -> str:
    """The tokenizer.json of a name on the hub, from the cache where it is there. Raises ServerError where network or
    hub do not give it now, at once where the hub is not reachable, and ConfigError where it cannot be had."""
    path = cached(name)
    if path is None:
        why = hub_is_unreachable()
        if why is not None:
            raise _not_had(name, f"a tokenizer.json, or a name on the hub when online ({why})", None)
        from huggingface_hub import hf_hub_download

        try:
            path = Path(hf_hub_download(name, "tokenizer.json"))
        except Exception as error:  # unknown, private, without the file: the library's errors have no common base
            reason = next(iter(str(error).strip().splitlines()), "")[:120] or type(error).__name__
            allowed = f"a tokenizer.json, a folder with one, or a hub name that has one ({reason})"
            raise _not_had(name, allowed, error) from None
    return path.read_text(encoding="utf-8")


def _not_had(name: str, allowed: str, error: Exception | None) -> LcprobeError:
    refused = ConfigError("data.tokenizer", name, allowed)
    return hub_error(str(refused), error, lambda line: refused)
