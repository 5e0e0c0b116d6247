"""A run goes on with the settings that it began with: others are refused before anything of a study is written."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lcprobe.config import Config, parse
from lcprobe.data.prepare import manifest_of
from lcprobe.errors import ConfigError
from lcprobe.files import digest_json
from lcprobe.locks import folder_claims
from lcprobe.schema import plain
from lcprobe.studies.status import read_run_config
from lcprobe.training.checkpoint import PLACES, check_same_corpus, checkpoints, load_progress, newest_progress
from lcprobe.training.processes import processes

CHANGEABLE_ON_RESUME = {
    ("data", "workers"),
    *(
        ("train", k)
        for k in (
            "log_every",
            "keep",
            "checkpoint_every",
            "probe_every",
            "threads",
            "compile",
            "recompute",
            "workers",
            "prefetch",
            "accumulate",
            "devices",
            "strategy",
            "tensor_parallel",
            "context_parallel",
            "guards",
            "hang_minutes",
            "max_hours",
        )
    ),
}
"""Settings that may change when a run is resumed."""


def check_begun(folder: Path, config: Config, is_tuned: bool = False) -> None:
    """As `check_same_run`, without its lock: also where a live process is at the run before its first checkpoint,
    which several processes of one run would not see at one time, and find out under the lock. is_tuned: a sweep will
    give it its rate, which is not compared."""
    is_live = processes().size == 1 and (folder / "config.yaml").is_file() and bool(folder_claims(folder).live())
    if is_live or (folder / "checkpoints").is_dir():
        _compare(folder, config, is_tuned)


class SameTexts:
    """Checks that runs which have begun are of the text that they would go on with; each text is looked at once."""

    def __init__(self) -> None:
        self._digests: dict[tuple[str, str, bool], dict[str, str]] = {}

    def check(self, folder: Path, config: Config, trained_on: str) -> None:
        """Raises DataError for another text or tokenizer than a run's newest checkpoint was trained on, and as
        `manifest_of`. trained_on: see PlannedRun."""
        for _, path in checkpoints(folder / "checkpoints"):
            with suppress(OSError, ValueError, TypeError):  # damaged
                before = load_progress(path)
                break
        else:
            return
        asked = digest_json(plain(config.data)), before.corpus_digest, bool(trained_on)
        if asked not in self._digests:
            self._digests[asked] = manifest_of(config.data, before.corpus_digest, anywhere=bool(trained_on))
        check_same_corpus(path, before, self._digests[asked])


def check_same_run(folder: Path, config: Config) -> None:
    """Raises ConfigError where a run's folder has checkpoints of other settings. The caller has its lock."""
    if (folder / "checkpoints").is_dir():
        _compare(folder, config)


def _compare(folder: Path, config: Config, is_tuned: bool = False) -> None:
    if not (folder / "config.yaml").is_file():
        return
    digested = bool(newest_progress(folder / "checkpoints").tokenizer_digest)
    new, old = (_determining(one, digested) for one in (plain(config), plain(parse(read_run_config(folder)))))
    if is_tuned:
        new["train"]["lr"] = old["train"]["lr"]
    for key, given, before in _differences(new, old):
        was = "null" if before is None else repr(before)
        raise ConfigError(key, given, f"{was} as in {folder} (or another study.name)")


def _determining(config: Mapping[str, Any], digested: bool) -> dict[str, Any]:
    """The settings that determine a run's result: model, data, training, seed. digested: whether the checkpoints know
    their text and tokenizer by digest, wherever these are."""
    kept = {k: dict(config[k]) for k in ("model", "data", "train")}
    for place in PLACES if digested else ("folder",):
        kept["data"].pop(place, None)
    for section, key in CHANGEABLE_ON_RESUME:
        kept[section].pop(key, None)
    return {**kept, "seed": config["seed"]}


def _differences(new: Any, old: Any, key: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(new, dict) and isinstance(old, dict):
        differences = []
        for name in dict.fromkeys([*new, *old]):
            differences += _differences(new.get(name), old.get(name), f"{key}.{name}" if key else str(name))
        return differences
    return [] if new == old else [(key, new, old)]
