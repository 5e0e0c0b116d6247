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
import json
import math
import random
import sys
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
OF_WAY = {
    "value": ("constant",),
    "values": ("categorical", "categorical_w_probabilities"),
    "min": ("uniform", "int_uniform", "log_uniform_values"),
}
"""Distributions of W&B that go with each way to give what is drawn."""
MAX_TRIALS = 1000
"""As many as a grid may have runs."""
MAX_RANGE = 1_000_000
"""Whole numbers from min to max in a grid, of which the first may be asked for."""
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
    most so many trials. notes: what of the file has no effect here."""

    method: str
    parameters: Mapping[str, Parameter]
    metric: str | None = None
    maximize: bool = False
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    cap: int | None = None
    name: str = field(default="sweep")
    notes: Sequence[str] = ()

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
        return [*self.before, *(setting(key, value) for key, value in trial.items()), *self.after]


def setting(key: str, value: Any) -> str:
    """A value of a trial as a word of the command line. W&B's agents write nothing as Python's None, which is a
    text in YAML; here it is null."""
    return f"{key}={json.dumps(value) if value is None or isinstance(value, list | dict) else value}"


def read_sweep(path: Path) -> Sweep:
    """Read a file. Raises ConfigError for one that is no sweep of train.py, and for what needs W&B's server."""
    try:
        given = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        raise ConfigError(str(path), "no readable YAML", "a sweep in W&B's format") from None
    if isinstance(given, dict) and not {"parameters", "method", "program"} & set(given) and "study" in given:
        allowed = f"a sweep in W&B's format; this one is for train.py: python train.py [CONFIG ...] {path}"
        raise ConfigError(str(path), "a config of lcprobe", allowed)
    fits = isinstance(given, dict) and "parameters" in given
    require(str(path), given, fits, "a mapping with method and parameters")
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
    allowed = "{name: train/final_loss, goal: minimize}, or another metric of training"
    require("metric", metric, isinstance(metric, Mapping) and {*metric} <= {"name", "goal", "target"}, allowed)
    require("metric.name", metric.get("name"), isinstance(metric.get("name", ""), str), "the name of a metric")
    require("metric.goal", metric.get("goal"), metric.get("goal", GOALS[0]) in GOALS, " | ".join(GOALS))
    cap = given.get("run_cap")
    require("run_cap", cap, cap is None or (type(cap) is int and cap >= 1), "a whole number >= 1")
    parameters = _parameters(given["parameters"], method)
    before, after = _command(given.get("command", ["${env}", "python", PROGRAM, ARGUMENTS]))
    name, maximize = str(given.get("name", path.stem)), metric.get("goal") == "maximize"
    early = "early_terminate has no effect here, without W&B's server: every trial is trained to its end"
    notes = [early] if given.get("early_terminate") else []
    return Sweep(method, parameters, metric.get("name"), maximize, before, after, cap, name, notes)


def _parameters(given: Any, method: str) -> dict[str, Parameter]:
    allowed = "a mapping of settings, such as train.lr: {values: [0.003, 0.01]}"
    require("parameters", given, isinstance(given, Mapping) and len(given) > 0, allowed)
    for key in given:
        own = key.partition(".")[0] == "launcher" or key == "study.run"
        allowed = "settings of a run: trials are named by their values, and have one launcher (launcher=...)"
        require("parameters", key, not own, allowed)
    return {key: _parameter(f"parameters.{key}", one, method) for key, one in given.items()}


def _parameter(key: str, given: Any, method: str) -> Parameter:
    require(key, given, isinstance(given, Mapping) and bool(given), "value, values, or min and max")
    for name in given:
        if name not in PARAMETER:
            raise unknown_name(key, name, PARAMETER)
    ways = [one for one in (["value"], ["values"], ["min", "max"]) if not {*one}.isdisjoint(given)]
    require(key, dict(given), len(ways) == 1, "one of: value | values | min and max")
    way = ways[0][0]
    stated, fitting = given.get("distribution"), OF_WAY[way]
    allowed = f"{' | '.join(fitting)} beside {' and '.join(ways[0])}"
    require(f"{key}.distribution", stated, stated is None or stated in fitting, allowed)
    unasked = way != "values" and "probabilities" in given
    require(f"{key}.probabilities", given.get("probabilities"), not unasked, "probabilities of values alone")
    if way == "value":
        return Parameter([given["value"]])
    if way == "values":
        values, chances = given["values"], given.get("probabilities")
        require(f"{key}.values", values, isinstance(values, list) and len(values) > 0, "a list of values")
        fits = chances is None or (isinstance(chances, list) and len(chances) == len(values))
        fits = fits and (chances is None or (all(map(_is_chance, chances)) and sum(chances) > 0))
        require(f"{key}.probabilities", chances, fits, "a number >= 0 for each value, not all of them 0")
        return Parameter(values, chances)
    low, high = (_number(f"{key}.{name}", given.get(name)) for name in ("min", "max"))
    require(key, dict(given), low <= high, "min <= max")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = stated or ("int_uniform" if whole else "uniform")
    require(f"{key}.distribution", kind, kind != "int_uniform" or whole, "int_uniform between whole numbers")
    require(f"{key}.min", low, kind != "log_uniform_values" or low > 0, "> 0")
    if method == "grid":
        require(key, dict(given), kind == "int_uniform", "value or values in a grid, or whole numbers min and max")
        require(key, dict(given), high - low < MAX_RANGE, f"less than {MAX_RANGE:,} values in a grid")
        return Parameter(range(int(low), int(high) + 1))
    return Parameter(distribution=kind, low=low, high=high)


def _is_chance(given: Any) -> bool:
    return isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= sys.float_info.max


def _number(key: str, given: Any) -> int | float:
    """A number that is finite as a float, too."""
    if not isinstance(given, int | float) or isinstance(given, bool) or not abs(given) <= sys.float_info.max:
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
