"""A sweep in W&B's format, as `wandb sweep` takes it, and its trials without a server: all of a grid, or random ones
from a seed.

    program: train.py
    method: grid                            # or random; bayes needs W&B
    metric: {name: train/final_loss, goal: minimize}
    parameters:
      train.lr: {values: [0.003, 0.01]}     # or value; min and max, with distribution
    command: [${env}, python, ${program}, configs/quickstart.yaml, study.name=rates, ${args_no_hyphens}]
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lcprobe.dialect import read_yaml
from lcprobe.errors import ConfigError, require, unknown_name

KEYS = (
    "program", "method", "metric", "parameters", "command", "name", "description", "project", "entity", "run_cap",
    "early_terminate",
)  # fmt: skip
METHODS = ("grid", "random")
GOALS = ("minimize", "maximize")
PARAMETER = ("value", "values", "probabilities", "distribution", "min", "max")
DISTRIBUTIONS = ("constant", "categorical", "uniform", "int_uniform", "log_uniform_values")
MAX_TRIALS = 1000
"""As many as a grid may have runs."""
PROGRAM, ARGUMENTS = "${program}", "${args_no_hyphens}"
Trial = dict[str, Any]
"""Values by key of the config."""


@dataclass(frozen=True)
class Parameter:
    """The values of one key: `values` with their probabilities, or numbers from `low` to `high`."""

    values: Sequence[Any] = ()
    probabilities: Sequence[float] | None = None
    distribution: str = "categorical"
    low: float = 0.0
    high: float = 0.0

    def draw(self, stream: random.Random) -> Any:
        """One of its values."""
        if self.values:
            return stream.choices(list(self.values), self.probabilities)[0]
        if self.distribution == "int_uniform":
            return stream.randint(int(self.low), int(self.high))
        if self.distribution == "uniform":
            return stream.uniform(self.low, self.high)
        return math.exp(stream.uniform(math.log(self.low), math.log(self.high)))


@dataclass(frozen=True)
class Sweep:
    """A sweep. before: configs and key=value of every trial that come before its own; after: those behind. cap: at
    most so many trials."""

    method: str
    parameters: Mapping[str, Parameter]
    metric: str | None = None
    maximize: bool = False
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    cap: int | None = None
    name: str = field(default="sweep")

    def trials(self, count: int | None, seed: int) -> list[Trial]:
        """The trials: of a grid the first `count` (None: all), at random that many. Raises ConfigError for a random
        sweep without a number, and for more than MAX_TRIALS."""
        count = self.cap if count is None else count
        size = math.prod(len(parameter.values) for parameter in self.parameters.values())
        wanted = size if count is None or (self.method == "grid" and size < count) else count
        require("run_cap", wanted, wanted <= MAX_TRIALS, f"at most {MAX_TRIALS} trials, or --trials N")
        if self.method == "grid":
            every = itertools.product(*(parameter.values for parameter in self.parameters.values()))
            return [dict(zip(self.parameters, values, strict=True)) for values in itertools.islice(every, count)]
        if count is None:
            raise ConfigError("run_cap", "nothing, in a random sweep", "a number of trials, or --trials N")
        stream = random.Random(seed)
        return [{key: parameter.draw(stream) for key, parameter in self.parameters.items()} for _ in range(count)]

    def words(self, trial: Trial) -> list[str]:
        """A trial on the command line of `train`."""
        return [*self.before, *(f"{key}={value}" for key, value in trial.items()), *self.after]


def read_sweep(path: Path) -> Sweep:
    """Read a file. Raises ConfigError for one that is no sweep of train.py, and for what needs W&B's server."""
    try:
        given = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        raise ConfigError(str(path), "no readable YAML", "a sweep in W&B's format") from None
    if isinstance(given, dict) and not {"parameters", "method", "program"} & set(given) and "study" in given:
        allowed = f"a sweep in W&B's format; this one is for train.py: python train.py [CONFIG ...] {path}"
        raise ConfigError(str(path), "a config of lcprobe", allowed)
    require(
        str(path), given, isinstance(given, dict) and "parameters" in given, "a mapping with method and parameters"
    )
    for key in given:
        if key not in KEYS:
            raise unknown_name(str(path), key, KEYS)
    method = given.get("method", "grid")
    if method == "bayes":
        raise ConfigError(
            "method", method, f"{' | '.join(METHODS)} here; bayes needs W&B's server: wandb sweep {path}"
        )
    require("method", method, method in METHODS, " | ".join(METHODS))
    program = str(given.get("program", "train.py"))
    require("program", program, Path(program).name == "train.py", "train.py")
    metric = given.get("metric") or {}
    require("metric.goal", metric.get("goal"), metric.get("goal", GOALS[0]) in GOALS, " | ".join(GOALS))
    cap = given.get("run_cap")
    require("run_cap", cap, cap is None or (isinstance(cap, int) and cap >= 1), "a whole number >= 1")
    parameters = {key: _parameter(f"parameters.{key}", one, method) for key, one in given["parameters"].items()}
    before, after = _command(given.get("command", ["${env}", "python", PROGRAM, ARGUMENTS]))
    name, maximize = str(given.get("name", path.stem)), metric.get("goal") == "maximize"
    return Sweep(method, parameters, metric.get("name"), maximize, before, after, cap, name)


def _parameter(key: str, given: Any, method: str) -> Parameter:
    require(key, given, isinstance(given, Mapping) and bool(given), "value, values, or min and max")
    for name in given:
        if name not in PARAMETER:
            raise unknown_name(key, name, PARAMETER)
    if "value" in given:
        return Parameter([given["value"]])
    if "values" in given:
        values, chances = given["values"], given.get("probabilities")
        require(f"{key}.values", values, isinstance(values, list) and len(values) > 0, "a list of values")
        fits = chances is None or (isinstance(chances, list) and len(chances) == len(values))
        require(f"{key}.probabilities", chances, fits, "one number for each value")
        return Parameter(values, chances)
    low, high = (_number(f"{key}.{name}", given.get(name)) for name in ("min", "max"))
    require(key, dict(given), low <= high, "min <= max")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = str(given.get("distribution", "int_uniform" if whole else "uniform"))
    require(f"{key}.distribution", kind, kind in DISTRIBUTIONS[2:], " | ".join(DISTRIBUTIONS))
    require(f"{key}.min", low, kind != "log_uniform_values" or low > 0, "> 0")
    if method == "grid":
        require(key, dict(given), kind == "int_uniform", "value or values in a grid, or whole numbers min and max")
        return Parameter(range(int(low), int(high) + 1))
    return Parameter(distribution=kind, low=low, high=high)


def _number(key: str, given: Any) -> int | float:
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise ConfigError(key, given, "a number (or value, or values)")
    return given


def _command(given: Any) -> tuple[list[str], list[str]]:
    """What every trial is given before and after its own settings."""
    words = list(map(str, given)) if isinstance(given, list) else []
    fits = PROGRAM in words and words.count(ARGUMENTS) == 1 and words.index(PROGRAM) < words.index(ARGUMENTS)
    allowed = f"a list with {PROGRAM}, then configs and key=value, and {ARGUMENTS}"
    require("command", given, fits, allowed)
    own, at = words[words.index(PROGRAM) + 1 :], words.index(ARGUMENTS) - words.index(PROGRAM) - 1
    before, after = own[:at], own[at + 1 :]
    for word in _macros([*before, *after]):
        raise ConfigError("command", word, allowed)
    return before, after


def _macros(words: list[str]) -> Iterator[str]:
    """W&B's own words among the arguments of the program. (`${...}` inside key=value is an interpolation.)"""
    return (word for word in words if word.startswith("${"))
