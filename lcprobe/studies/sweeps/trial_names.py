"""Names of a sweep's trials, `lr=0.01-d_model=64`: of folders, so that no two trials have one."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from lcprobe.files import digest_json
from lcprobe.studies.sweeps.sweep_file import Trial, setting

MAX_NAME = 100
DIGEST = 8
"""Characters of a digest that a name ends with where nothing else tells two trials apart."""


def named(trials: Sequence[Trial]) -> dict[str, Trial]:
    """The trials by name, in their order; one that was drawn again is there once.

    A key is its last part, or as many as tell it from the others; a number has six digits, or all where two names
    would be equal. What is still equal (in the letters that folders have, or cut to MAX_NAME) ends with a digest.
    """
    distinct = {tuple(setting(key, value) for key, value in trial.items()): trial for trial in trials}
    keys = short_keys(list(next(iter(trials), {})))

    def digested(trial: Trial) -> str:
        words = [setting(key, value) for key, value in trial.items()]
        return f"{_name(trial, keys, repr)[: MAX_NAME - DIGEST - 1]}-{digest_json(words)[:DIGEST]}"

    ways: list[Callable[[Trial], str]] = [lambda trial: _name(trial, keys, repr), digested]
    names = [_name(trial, keys, "{:g}".format) for trial in distinct.values()]
    for way in ways:
        count = Counter(names)
        names = [
            way(trial) if count[name] > 1 else name for name, trial in zip(names, distinct.values(), strict=True)
        ]
    return dict(zip(names, distinct.values(), strict=True))


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """The last part of each dotted key, or as many parts as no other key ends with."""
    return {key: _shortest(key, [other for other in keys if other != key]) for key in keys}


def _shortest(key: str, others: Sequence[str]) -> str:
    parts = key.split(".")
    ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
    return next((end for end in ends if not any(f".{other}".endswith(f".{end}") for other in others)), key)


def _name(trial: Trial, keys: dict[str, str], number: Callable[[float], str]) -> str:
    values = [f"{keys[key]}={_text(value, number)}" for key, value in trial.items()]
    return "".join(c if c.isalnum() or c in "._+=-" else "_" for c in "-".join(values))[:MAX_NAME] or "trial"


def _text(value: Any, number: Callable[[float], str]) -> str:
    return number(value) if isinstance(value, float) else "null" if value is None else str(value)
