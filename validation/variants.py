"""Every task in each of its variants: the tasks that attacks, exactness and generation measure."""

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from lcprobe.data.sources.sotu import speeches
from lcprobe.tasks.presets import PRESETS
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer
from validation.questions import hotpot, squad

EVERY = Path(__file__).resolve().parents[1] / "configs" / "probe" / "every.yaml"


@cache
def variants() -> dict[str, Any]:
    """RULER's configurations, the tasks of configs/probe/every.yaml, and questions from synthetic files, by name."""
    tasks = yaml.safe_load(EVERY.read_text(encoding="utf-8"))["probe"]["tasks"]
    files = {
        f"qa_{source}": {"type": "qa", "source": source, "path": str(Path(_folder().name) / f"{source}.json")}
        for source in ("squad", "hotpot")
    }
    return {**{name: name for name in PRESETS}, **tasks, **files}


@cache
def _folder() -> TemporaryDirectory[str]:
    folder = TemporaryDirectory()  # until the process ends
    for name, content in (("squad", squad(150)), ("hotpot", hotpot())):
        (Path(folder.name) / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def materials_of(tokenizer: Tokenizer | None = None) -> Materials:
    """A twelfth of the speeches as a haystack."""
    tokenizer = tokenizer or load_tokenizer()
    text = "\n\n".join(t for i, t in enumerate(speeches()) if i % 12 == 0)
    return Materials(tokenizer, TokenStream.from_text("corpus", text, tokenizer))
