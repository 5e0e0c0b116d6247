"""Every task in each of its variants: the tasks that attacks, exactness and generation measure."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from lcprobe.data.sources.sotu import speeches
from lcprobe.errors import ConfigError
from lcprobe.tasks.presets import PRESETS
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer
from validation.questions import hotpot, squad

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
EVERY = CONFIGS / "probe" / "every.yaml"


@dataclass(frozen=True)
class ShippedGrids:
    """What a shipped config probes. context_length: what it trains on; None: it trains nothing."""

    tasks: dict[str, Any]
    grids: list[dict[str, Any]]
    context_length: int | None


def shipped_grids(name: str) -> ShippedGrids:
    """Tasks and grids of configs/NAME.yaml or configs/probe/NAME.yaml. Raises ConfigError where there is none."""
    paths = CONFIGS / f"{name}.yaml", CONFIGS / "probe" / f"{name}.yaml"
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise ConfigError("grids", name, "a file of configs or configs/probe, by its name")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    probe = config["probe"]
    return ShippedGrids(probe["tasks"], probe["grids"], config.get("train", {}).get("context_length"))


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
