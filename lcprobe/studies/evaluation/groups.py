"""Which probed runs are training seeds of one model: those whose settings, as far as they decide what is trained, are
equal without the seed. What the runs are called decides nothing: one study may call `mamba2` what is another model in
another, and two studies may have two names for one model.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from lcprobe.config import Config, parse
from lcprobe.errors import DataError
from lcprobe.files import digest_json, has_weights
from lcprobe.schema import plain
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.studies.planning.duplicates import canonical_model, encoding_names
from lcprobe.studies.status import read_run_config, read_status

OF_THE_LENGTH = ("context_length", "tokens", "batch_tokens")
"""Settings of training that follow the training length where budgets are held equal."""
OF_THE_MACHINE = (
    "from", "from_", "accumulate", "compile", "recompute", "accelerator", "devices", "threads", "checkpoint_every",
    "keep", "log_every", "probe_every", "strategy", "tensor_parallel", "context_parallel",
    "workers", "prefetch",
)  # fmt: skip
"""Settings of training that say how and where it ran; `from` names a run, which has a seed of its own."""
POSITIONAL = "model.positional"
MAX_IN_NAME, MAX_VALUE, MAX_SHOWN = 2, 24, 3
"""Settings in a name, characters of a value, and settings in a note, at most."""


class GroupNames(NamedTuple):
    """group: shared by runs that differ in their seed alone. architecture: by runs that differ in their training
    length too."""

    group: str
    architecture: str


@dataclass(frozen=True)
class Deciding:
    """What decides how a run is trained, its seed apart. settings: by dotted key; model: digest of the model,
    however it is written; study: the folder of its study; encoding: what its attention has."""

    settings: Mapping[str, Any]
    model: str
    study: Path
    encoding: str = ""

    @property
    def key(self) -> str:
        """Equal for seeds of one model."""
        own = {key: value for key, value in self.settings.items() if not key.startswith("model.")}
        return digest_json([self.model, own])


def group_names(targets: Sequence[ProbeTarget]) -> list[GroupNames]:
    """The names of each target: that of its study, with the settings that differ, or the name of the study, where
    models of one name differ in more than it stands for."""
    return _named(targets)[0]


def group_notes(targets: Sequence[ProbeTarget]) -> list[str]:
    """A line for each name that several models had, with the settings in which they differ."""
    return _named(targets)[1]


def _named(targets: Sequence[ProbeTarget]) -> tuple[list[GroupNames], list[str]]:
    labels = [_label(target) for target in targets]
    models = _deciding(targets, labels)
    first: dict[str, int] = {}
    for i, model in enumerate(models):
        first.setdefault(model.key, i)
    same = [first[model.key] for model in models]  # the first run of each one's model, after which it is called
    groups, notes = _told_apart([labels[i] for i in same], models)
    given = [target.config.study.architecture or label for target, label in zip(targets, labels, strict=True)]
    lengths = _deciding(targets, labels, OF_THE_LENGTH)
    of_study: dict[tuple[str, Path], Deciding] = {}  # inside a study the planner has named them
    any_length = [of_study.setdefault((given[i], lengths[i].study), lengths[i]) for i in same]
    architectures, _ = _told_apart([given[i] for i in same], any_length)
    return [GroupNames(*names) for names in zip(groups, architectures, strict=True)], notes


def _label(target: ProbeTarget) -> str:
    """What its study calls the model."""
    status = read_status(target.run_folder) if target.run_folder else {}
    return status.get("group") or target.config.study.group or target.name


def _deciding(targets: Sequence[ProbeTarget], labels: Sequence[str], left_out: Sequence[str] = ()) -> list[Deciding]:
    """left_out: settings of training that do not count here."""
    digests = all(t.source.progress.corpus_digest for t in targets if t.source.published is None)
    deciding = []
    for target, label in zip(targets, labels, strict=True):
        study = (target.run_folder or target.source.path).parent
        if target.source.published is not None:
            deciding.append(Deciding({"name": target.name}, target.name, study))
            continue
        config, progress = target.config, target.source.progress
        if left_out:
            config = replace(config, model=replace(config.model, context_length=None))
        given = _settings(config, left_out, [str(study), label])
        if digests:  # the same text and tokenizer may be somewhere else
            given["data"] |= {"corpus": progress.corpus_digest[:12], "tokenizer": progress.tokenizer_digest[:12]}
        if not left_out:
            given["trained_tokens"] = progress.tokens
        model = digest_json(canonical_model(config.model))
        deciding.append(Deciding(_flat(given), model, study, encoding_names(config.model)))
    return deciding


def _settings(config: Config, left_out: Sequence[str], unknown_start: Any) -> dict[str, Any]:
    """Everything that a run's weights depend on, its seed apart. unknown_start: stands for a run to start from that
    is not there any more."""
    data = {key: value for key, value in plain(config.data).items() if key != "folder"}
    used = {name for stage in config.data.mixture for name in stage.episodes}
    data["recipes"] = {name: recipe for name, recipe in data["recipes"].items() if name in used}
    train = {key: value for key, value in plain(config.train).items() if key not in (*OF_THE_MACHINE, *left_out)}
    start = config.train.from_
    if start is not None:
        train["from"] = _start(Path(start), unknown_start)
    return {"model": plain(config.model), "data": data, "train": train}


def _start(folder: Path, unknown: Any) -> str:
    """Digest of what a run started from, without its seed."""
    try:
        config = parse(read_run_config(folder))
    except DataError:
        return digest_json(unknown)[:12]
    step = folder.name if has_weights(folder) else ""
    given = _settings(config, (), unknown)
    return digest_json([canonical_model(config.model), given["data"], given["train"], step])[:12]


def _flat(value: Any, at: str = "") -> dict[str, Any]:
    """Settings by dotted key; a list is one value."""
    if not isinstance(value, Mapping) or not value:
        return {at: value}
    return {k: v for key, inner in value.items() for k, v in _flat(inner, f"{at}.{key}" if at else str(key)).items()}


def _told_apart(names: list[str], models: Sequence[Deciding]) -> tuple[list[str], list[str]]:
    """Names of which none stands for two models, and a note on each that did."""
    told, notes = list(names), []
    for name in dict.fromkeys(names):
        own = {m.key: m for n, m in zip(names, models, strict=True) if n == name}
        if len(own) < 2:
            continue
        differ = _differences(list(own.values()))
        new = _own_names(name, own, differ)
        told = [new[m.key] if n == name else t for t, n, m in zip(told, names, models, strict=True)]
        shown = [f"{key} ({', '.join(map(_text, differ[key]))})" for key in [*differ][:MAX_SHOWN]]
        more = [f"{len(differ) - MAX_SHOWN} more"] if len(differ) > MAX_SHOWN else []
        what = ", ".join([*shown, *more])
        notes.append(f"{len(own)} models are called {name}: {', '.join(new.values())} differ in {what}")
    return told, notes


def _differences(models: Sequence[Deciding]) -> dict[str, list[Any]]:
    """The settings that differ, each with the models' values."""
    same_model = len({model.model for model in models}) == 1
    keys = dict.fromkeys(key for model in models for key in model.settings)
    if any(key.startswith(f"{POSITIONAL}.") for key in keys):  # of one that is written with its settings
        keys.pop(POSITIONAL, None)
    differ = {key: [_value(model, key) for model in models] for key in keys}
    return {
        key: values
        for key, values in differ.items()
        if len({json.dumps(v, sort_keys=True) for v in values}) > 1 and not (same_model and key.startswith("model."))
    }


def _value(model: Deciding, key: str) -> Any:
    """A setting, of an encoding that model.positional does not name the one that the model has by default."""
    value = model.settings.get(key)
    return model.encoding if value is None and key in (POSITIONAL, f"{POSITIONAL}.type") else value


def _own_names(name: str, models: Mapping[str, Deciding], differ: Mapping[str, list[Any]]) -> dict[str, str]:
    """A name for each model by its key: with the settings, if they are few, else with the study or a digest."""
    texts = [f"{key.rsplit('.', 1)[-1]}={_text(value)}" for key, values in differ.items() for value in values]
    ways: list[Callable[[int, Deciding], str]] = [lambda _, model: f"{model.study.name}.{name}"]
    if len(differ) <= MAX_IN_NAME and all(len(text) <= MAX_VALUE and " " not in text for text in texts):
        n = len(models)
        ways.insert(0, lambda i, _: "-".join([name, *texts[i::n]]))
    for way in ways:
        new = {key: way(i, model) for i, (key, model) in enumerate(models.items())}
        if len({*new.values()}) == len(models):
            return new
    return {key: f"{name}-{key[:6]}" for key in models}


def _text(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
