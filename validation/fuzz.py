"""Fuzzed settings: every field of the schema and of every registered choice, given values that it cannot have. Each
ends as a valid plan or as one line with exit code 2: no traceback, nothing written, within seconds.

The commands run in this process and stop at the plan. A field's values are taken in turn from VALUES, so that
neighbouring fields get different ones; with `per_field` at their number every field gets all. Every third value is
given in a grid instead.
"""

import dataclasses
import io
import itertools
import json
import time
import traceback
import typing
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any, Literal, get_args, get_origin

from lcprobe.choices import ByName, Registry
from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.config import Config
from lcprobe.data.config import Recipe, Stage
from lcprobe.data.sources import SOURCES
from lcprobe.dialect import write_yaml
from lcprobe.lengths import LengthStage
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mlps import MLPS
from lcprobe.models.positional import POSITIONAL, POSITIONS, TEMPERATURES
from lcprobe.probing.config import ContextProbe, Grid
from lcprobe.schema import key_of
from lcprobe.tasks import TASKS
from lcprobe.training import INITIAL_STATES
from lcprobe.training.config import SwitchConfig

TITLE = "fuzzed settings: how plans of impossible values end"
OPTIONS = ("per_field", "only")
MAX_LINES, MAX_SECONDS = 2, 10.0

VALUES: dict[str, str] = {
    "text": "some text",
    "number": "3",
    "nan": ".nan",
    "inf": ".inf",
    "1e308": "1e308",
    "20 digits": "99999999999999999999",
    "31 bits": "2147483647",
    "ten digits": "9999999999",
    "15 digits": "999999999999999",
    "negative": "-7",
    "zero": "0",
    "fraction": "0.3",
    "null": "null",
    "true": "true",
    "list": "[1, [2], x]",
    "mapping": "{a: {b: 1}}",
    "newline": '"a\\nb"',
    "empty": '""',
    "long": "a" * 5000,
    "long name": "a" * 300,
    "NUL": '"a\\0b"',
    "near miss": "",  # made of the names that a field may have
}
"""YAML by kind of value."""

SIZES: tuple[str, ...] = (
    "probe.grids[0].lengths=[1e10]",
    "probe.grids[0].lengths=[2e6]",
    "probe.grids[0].lengths=[10000000000t]",
    "probe.grids[0].depths=1e8",
    "probe.grids[0].n=1e9",
    "probe.while_training={lengths: [1e10], n: 1}",
    "probe.context={lengths: [1e12]}",
    "probe.context={lengths: [130000000t], n: 1000000}",
    "train={context_length: 1e10, batch_tokens: 1e10, tokens: 1e10}",
    "train.length_schedule=[{length: 10000000000t}]",
    "data.mixture=[{lm: 0.25, episodes: {lines: 1}, lengths: [10000000000t]}]",
    "train={accumulate: 1, batch_tokens: 1073741824, tokens: 1e15, context_length: 64}",
    "train.threads=3e9",
    "train.threads=1e15",
    "train.devices=3e9",
    f"model.layout={', '.join(['mamba2 x 9999'] * 9)}",
    f"model.layout={', '.join(['mamba2'] * 20_000)}",
    f"model.layout=parallel({', '.join(['mamba2'] * 20_000)})",
    f"model.positional={', '.join(['rope'] * 20_000)}",
    f"grid.seed={list(range(2000))}",
    f"grid={{seed: {list(range(100))}, train.lr: {[k / 1000 for k in range(1, 101)]}}}",
)
"""Settings whose parts are allowed one by one and whose whole takes memory or time."""

LINE = {"type": "niah", "n_keys": 2, "template": "line", "digits": 2}
GRID = {"lengths": [1, 2], "depths": 1, "n": 2}
BASE: dict[str, Any] = {
    "study": {"name": "fuzz"},
    "model": {
        "layout": "attention+mlp, mamba2",
        "d_model": 16,
        "d_ff": 16,
        "mixers": {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16}},
    },
    "train": {
        "context_length": 64,
        "tokens": 512,
        "batch_tokens": 256,
        "lr": 0.01,
        "length_schedule": [{"until": 0.5, "length": 0.5}, {}],
    },
    "data": {
        "recipes": {"lines": {"task": LINE}},
        "mixture": [{"lm": 0.25, "episodes": {"lines": 1}, "lengths": [1]}],
    },
    "probe": {"tasks": {"t": LINE}, "grids": [GRID], "context": {"lengths": [1], "n": 2, "kept": [8]}},
    "track": {"wandb": "off"},
}
"""A study of one run, whose settings are replaced one at a time."""
ELEMENTS: dict[str, type] = {
    "data.recipes.lines": Recipe,
    "data.mixture[0]": Stage,
    "probe.grids[0]": Grid,
    "probe.while_training": Grid,
    "probe.context": ContextProbe,
    "train.switch": SwitchConfig,
    "train.length_schedule[0]": LengthStage,
}
"""Configs inside lists, mappings and fields that may be null."""
REGISTRIES: dict[str, tuple[Registry, str]] = {
    "mixers": (MIXERS, "model={{layout: {name}, mixers: {{{name}: {settings}}}}}"),
    "mlps": (MLPS, "model={{layout: attention+own, mlps: {{own: {choice}}}}}"),
    "encodings": (POSITIONAL, "model.positional={choice}"),
    "positions": (POSITIONS, "model.positions={choice}"),
    "temperatures": (TEMPERATURES, "model.mixers.attention.temperature={choice}"),
    "initial states": (INITIAL_STATES, "train.initial_state={choice}"),
    "extensions": (EXTENSIONS, "pe.extend={choice}"),
    "trained extensions": (EXTENSIONS, "train.extend={choice}"),
    "tasks": (TASKS, "probe.tasks.t={choice}"),
    "recipes": (TASKS, "data.recipes.lines.task={choice}"),
    "sources": (SOURCES, "data.corpus=[{choice}]"),
}
"""Where a choice of each registry is set. settings: as YAML; choice: with its type."""
IN_GRID = "grid.axis.label."
"""Where every third setting is given, if it can vary between the runs of a study."""
REQUIRED: dict[str, Any] = {
    "definition": "softplus",
    "max_length": 256,
    "path": "nowhere",
    "name": "nowhere",
    "dim": 8,
}
"""Values of fields without a default, for the others of their choice."""


@dataclasses.dataclass(frozen=True)
class Case:
    """One setting. where: the field, or the registry; kind: of VALUES; override: key=value."""

    where: str
    kind: str
    override: str


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a command ended. code: the exit code, "" for a traceback; fault: what is wrong, "" if nothing."""

    case: Case
    code: int | None
    said: str
    seconds: float
    fault: str


def cases(per_field: int = len(VALUES)) -> list[Case]:
    """Every field with `per_field` of the values, by turns."""
    kinds, made = list(VALUES), []
    for number, (where, template, hint) in enumerate(_fields()):
        for i in range(min(per_field, len(kinds))):
            kind = kinds[(number * per_field + i) % len(kinds)]
            value = _near_miss(hint) if kind == "near miss" else VALUES[kind]
            override = template.replace("VALUE", value)
            in_grid = (number + i) % 3 == 2 and _can_be_in_grid(template)
            made.append(Case(where, kind, f"{IN_GRID}{override}" if in_grid else override))
    return made


def size_cases() -> list[Case]:
    """Those of SIZES."""
    return [Case(setting.partition("=")[0], "size", setting) for setting in SIZES]


def _can_be_in_grid(template: str) -> bool:
    key = template.partition("=")[0]
    return key.partition(".")[0] in ("model", "data", "train", "seed") and "[" not in key


def _fields() -> Iterator[tuple[str, str, Any]]:
    """(name, override with VALUE in place of the value, type) of every field."""
    yield from _fields_of(Config, "")
    for key, cls in ELEMENTS.items():
        yield from _fields_of(cls, f"{key}.")
    for title, (registry, template) in REGISTRIES.items():
        yield f"{title}.type", template.format(name="VALUE", settings="{}", choice="{type: VALUE}"), registry
        for name in registry:
            hints = _hints(registry.load(name).Config)
            required = [f.name for f in dataclasses.fields(registry.load(name).Config) if _is_required(f)]
            for field, hint in hints.items():
                others = {one: REQUIRED[one] for one in required if one != field}
                given = ", ".join([*(f"{one}: {json.dumps(value)}" for one, value in others.items())])
                settings = f"{{{key_of(field)}: VALUE{', ' * bool(given)}{given}}}"
                choice = f"{{type: {name}, {settings[1:]}"
                yield f"{title}.{name}.{field}", template.format(name=name, settings=settings, choice=choice), hint


def _fields_of(cls: type, prefix: str) -> Iterator[tuple[str, str, Any]]:
    for field, hint in _hints(cls).items():
        key = f"{prefix}{key_of(field)}"
        yield key, f"{key}=VALUE", hint
        if dataclasses.is_dataclass(hint):
            yield from _fields_of(typing.cast(type, hint), f"{key}.")


def _hints(cls: type) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _near_miss(hint: Any) -> str:
    """A name that a field of this type may have, misspelled; any word where it has none."""
    name = next(iter(_names(hint)), "corpus")
    return name[:-2] + name[-1] + name[-2] if len(name) > 2 else name + "x"


def _names(hint: Any) -> Iterator[str]:
    if isinstance(hint, Registry):
        yield from (name for name in hint if len(name) > 2)
    elif isinstance(hint, ByName):
        yield from _names(hint.registry)
    elif get_origin(hint) is Literal:
        yield from (one for one in get_args(hint) if isinstance(one, str) and len(one) > 2)
    elif get_origin(hint) is Annotated:
        yield from itertools.chain(*map(_names, hint.__metadata__))
    else:
        yield from itertools.chain(*map(_names, get_args(hint)))


def base_study(folder: Path) -> Path:
    """The study's config, in a folder of its own; everything that a command wrote would be beside it."""
    given = {**BASE, "study": {"name": "fuzz", "folder": f"{folder}/runs"}}
    given["data"] = {**BASE["data"], "folder": f"{folder}/data"}
    path = folder / "base.yaml"
    path.write_text(write_yaml(given), encoding="utf-8")
    return path


def run(case: Case, config: Path, trained: Path | None = None) -> Outcome:
    """Plan with a case's setting. config: of `base_study`; trained: a run's folder, to plan its probes instead."""
    out, err, code, fault = io.StringIO(), io.StringIO(), None, ""
    before, begin = _listing(config.parent), time.process_time()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            if trained is None:
                code = train_main([str(config), case.override, "--plan"])
            else:
                code = evaluate_main([str(trained), case.override, "--plan"])
        except BaseException as error:  # whatever it is, it is what this looks for
            last = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
    seconds, said = time.process_time() - begin, err.getvalue()
    if not fault:
        fault = _judged(code, out.getvalue(), said, seconds)
    if not fault and trained is None and _listing(config.parent) != before:
        fault = "something was written"
    return Outcome(case, code, said.strip(), seconds, fault)


def _judged(code: int | None, out: str, err: str, seconds: float) -> str:
    if code not in (0, 2):
        return f"exit {code}"
    if seconds > MAX_SECONDS:
        return f"{seconds:.0f} s"
    if code == 2 and (err.count("\n") > MAX_LINES or len(err) > MAX_CHARACTERS or out):
        return f"{err.count(chr(10)) + out.count(chr(10))} lines, {len(err)} characters"
    return "" if code == 0 or err.startswith("error: ") else "no `error:`"


MAX_CHARACTERS = 1500
"""Of an error: names of all choices are some hundred."""


def _listing(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.rglob("*"))


def measure(options: Mapping[str, str]) -> list[dict[str, Any]]:
    """One row per section of the schema and per registry, then one per fault."""
    made = [*cases(int(options.get("per_field", 3))), *size_cases()]
    chosen = [case for case in made if options.get("only", "") in f"{case.where} {case.kind}"]
    outcomes: list[Outcome] = []
    with TemporaryDirectory() as folder:
        config = base_study(Path(folder))
        outcomes = [run(case, config) for case in chosen]
    with TemporaryDirectory() as folder:
        config = base_study(Path(folder))
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            train_main([str(config)])
        trained = Path(folder) / "runs" / "fuzz" / "run"
        probed = [case for case in chosen if case.override.partition(".")[0] in ("probe", "pe", "track", "kernels")]
        outcomes += [run(_of_probing(case), config, trained) for case in probed]
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.case.where.partition(".")[0], []).append(outcome)
    rows = [_row(name, own) for name, own in groups.items()]
    return [*rows, _row("all", outcomes)]


def _of_probing(case: Case) -> Case:
    return dataclasses.replace(case, where=f"evaluate {case.where}")


def _row(name: str, outcomes: list[Outcome]) -> dict[str, Any]:
    codes = Counter(outcome.code for outcome in outcomes)
    faults = [outcome for outcome in outcomes if outcome.fault]
    return {
        "settings of": name,
        "cases": len(outcomes),
        "fields": len({outcome.case.where for outcome in outcomes}),
        "exit 2": codes[2],
        "valid plan": codes[0],
        "faults": len(faults),
        "slowest s": round(max(outcome.seconds for outcome in outcomes), 1),
        "longest error": max((len(outcome.said) for outcome in outcomes if outcome.code == 2), default=0),
        "found": "; ".join(f"{one.case.override[:120]}: {one.fault[:160]}" for one in faults),
    }
