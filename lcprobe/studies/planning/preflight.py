"""Checks that a study's tasks fit its tokenizers and lengths, before anything is printed or written."""

import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from lcprobe.config import Config
from lcprobe.data.config import DataConfig, Recipe
from lcprobe.data.phases import phases
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.lengths import in_tokens
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.units import Plan
from lcprobe.schema import plain
from lcprobe.studies.planning.not_trained import not_trained_notes
from lcprobe.studies.planning.text_fits import check_text_fits, naming, over_words
from lcprobe.studies.runtime import machine_memory
from lcprobe.tasks.assembly import Task
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.text.haystack import Materials

SAMPLES_PER_FORMAT = 4
"""Samples per combination of formats; a length must fit the shortest of each combination."""
EPISODE_BYTES, WINDOW_BYTES = 32, 8
"""Memory per token of an episode while it is built (ids of 8 bytes, its pieces, and a copy of both), and of a window
of plain text."""


def check_tasks_fit(configs: Sequence[Config], training: bool, known: Collection[int] = ()) -> list[str]:
    """Build episodes of the probe's grids and, for training, of what is probed while training and of the mixture's
    recipes, over common words instead of the corpus. configs: of a study's runs. known: numbers of those whose text
    was prepared before, and may not be where it was.

    Returns notes on what is too long to be probed, too short to be probed while training, and not trained. Raises
    EpisodeError where haystacks cannot be cut from the corpus, ConfigError for a task that cannot be created, for a
    multiple of a training length that is no whole number of tokens and for a length of the mixture that is too short
    or too long for some samples of a recipe in one of its formats; EpisodeError as `check_grids_fit`.
    """
    notes: list[str] = []
    lengths = sorted({config.train.context_length for config in configs})
    for config in _distinct(
        [c for number, c in enumerate(configs) if number not in known], lambda c: [c.data, c.probe]
    ):
        check_text_fits(config, training)
    for config in _distinct(configs, lambda c: [c.data.tokenizer, c.data.bos, c.probe]):
        plan = check_probes_fit(config.probe, config.data.tokenizer, config.data.bos, lengths)
        notes += [f"probe.grids: left out: {long}" for long in plan.too_long]
        if training and config.probe.while_training is not None:
            with naming(config.data.tokenizer):
                longest = max(config.probe.while_training.tokens(lengths, "probe.while_training.lengths"))
                _check_fits("probe.while_training.lengths", longest, EPISODE_BYTES)
                tasks = TaskSet(config.probe, over_words(config.data.tokenizer, config.data.bos))
                _check_grid(tasks, config.probe.while_training, lengths, "probe.while_training.lengths")
            notes += _left_out_while_training(tasks, config, configs)
    least: dict[str, dict[str, Least]] = {}
    trained = _distinct(configs, lambda c: [c.data, c.train.context_length, c.train.length_schedule])
    for config in trained if training else ():
        with naming(config.data.tokenizer):
            _check_recipes(config, least.setdefault(repr(plain(config.data)), {}))
    notes += not_trained_notes(configs) if training else []
    return list(dict.fromkeys(notes))


def _distinct(configs: Sequence[Config], of: Callable[[Config], Any]) -> list[Config]:
    """The first config of each distinct value."""
    return list({repr(plain(of(config))): config for config in reversed(configs)}.values())[::-1]


def check_probes_fit(probe: ProbeConfig, tokenizer: str, bos: str | None, context_lengths: Sequence[int]) -> Plan:
    """The plan of the probe's grids for models of these training lengths with this tokenizer, over common words
    instead of the corpus. tokenizer, bos: as in `data`.

    Raises ConfigError for a multiple of a training length that is no whole number of tokens, EpisodeError as
    `check_grids_fit`, naming the tokenizer.
    """
    probe.check_lengths(context_lengths)
    with naming(tokenizer):
        return check_grids_fit(TaskSet(probe, over_words(tokenizer, bos)), context_lengths)


def check_grids_fit(tasks: TaskSet, context_lengths: Sequence[int]) -> Plan:
    """The plan of the grids that the tasks belong to. Raises EpisodeError for formats that the tokenizer cannot
    represent, and for a length in tokens that is below the least length of a task; ConfigError as
    `check_memory`."""
    check_memory(tasks.config, context_lengths)
    for i, grid in enumerate(tasks.config.grids):
        _check_grid(tasks, grid, context_lengths, f"probe.grids[{i}].lengths")
    return tasks.plan(tasks.config.grids, *context_lengths)


def check_memory(probe: ProbeConfig, context_lengths: Sequence[int]) -> None:
    """Raises ConfigError for lengths of which an episode, or all windows of plain text, do not fit into the memory of
    this machine."""
    for i, grid in enumerate(probe.grids):
        key = f"probe.grids[{i}].lengths"
        _check_fits(key, max(grid.tokens(context_lengths, key)), EPISODE_BYTES)
    if probe.context is not None:
        longest, n = max(probe.context.tokens(context_lengths)), probe.context.n
        _check_fits("probe.context", longest, n * WINDOW_BYTES, f" in each of {n} windows")


def _check_fits(key: str, tokens: int, bytes_per_token: int, of: str = "") -> None:
    available = machine_memory()
    if available is not None and tokens * bytes_per_token > available:
        most = int(available // bytes_per_token)
        raise ConfigError(key, f"{tokens} tokens{of}", f"at most {most}{of} in {available / 1e9:.0f} GB of memory")


def _check_grid(tasks: TaskSet, grid: Grid, context_lengths: Sequence[int], key: str) -> None:
    """Raises EpisodeError naming `key` for a length in tokens that is below the least length of a task: it is a
    mistake, where a multiple may be too short at one training length of several."""
    for short in tasks.plan([grid], *context_lengths).too_short:
        if any(length.in_tokens for length in grid.lengths):
            given = f"{in_tokens(short.length)[0]} for {short.what}"
            raise EpisodeError(key, given, f"at least {in_tokens(short.least)[0]}")


def _left_out_while_training(tasks: TaskSet, config: Config, configs: Sequence[Config]) -> list[str]:
    """A note for each training length at which some of `probe.while_training` is too short or too long, or all of it
    is left out. config: whose tokenizer and probe the tasks have; configs: of all runs."""
    grid, notes = config.probe.while_training, []
    assert grid is not None
    of = f" ({config.data.tokenizer})" if len({_read_by(c) for c in configs}) > 1 else ""
    probed = [c for c in configs if c.train.probe_every != 0 and _read_by(c) == _read_by(config)]
    for length in sorted({c.train.context_length for c in probed}):
        plan = tasks.plan([grid], length)
        unfit = [str(one) for one in (*plan.too_short, *plan.too_long)]
        why = unfit if plan.units else [*plan.notes, "nothing is probed"]
        if why:
            notes.append(f"probe.while_training at training length {length}{of}: {'; '.join(why)}")
    return notes


def _read_by(config: Config) -> tuple[str, str | None]:
    return config.data.tokenizer, config.data.bos


class Least(NamedTuple):
    """The least length of a recipe, and the formats that need it."""

    tokens: int
    formats: Formats

    def __str__(self) -> str:
        names = (f"{name} {level}" for name, level in plain(self.formats).items() if level != NOTHING)
        return f"at least {self.tokens} tokens for {', '.join(names)}"


def _check_recipes(config: Config, shortest: dict[str, Least]) -> None:
    """shortest: least length of each recipe of the same data that is known so far. Raises ConfigError for sequences
    that are too short or too long for a recipe."""
    data, context_length = config.data, config.train.context_length
    _check_fits("train.context_length", context_length, EPISODE_BYTES)
    materials = over_words(data.tokenizer, data.bos)
    for phase in phases(data.mixture, context_length, config.train.length_schedule):
        for name in data.mixture[phase.stage].episodes:
            if name not in shortest:
                shortest[name] = _shortest(data, name, materials)
            for seqlen in phase.seqlens:
                if seqlen < shortest[name].tokens:
                    where = f"data.mixture[{phase.stage}].episodes.{name}"
                    given = f"sequences of {seqlen} tokens at training length {context_length}"
                    if phase.context_length < context_length:
                        given += f", {phase.context_length} by train.length_schedule"
                    raise ConfigError(where, given, str(shortest[name]))
            _check_longest(data, name, materials, max(phase.seqlens), f"data.mixture[{phase.stage}].episodes.{name}")


def _check_longest(data: DataConfig, name: str, materials: Materials, seqlen: int, at: str) -> None:
    """Raises ConfigError naming `at` where a recipe's episodes cannot have this many tokens in one of its formats."""
    recipe = data.recipes[name]
    task = recipe.task.create(materials)
    for formats in _formats_of(recipe, task):
        try:
            for index in range(SAMPLES_PER_FORMAT):
                factors = Factors(formats, seqlen, 0.5, index, split="train")
                if task.shortest(factors) <= seqlen:  # a sample that needs more is drawn again
                    next(task.attempts(factors, 1), None)
        except EpisodeError as error:
            raise ConfigError(at, f"sequences of {seqlen} tokens", f"shorter ones ({error})") from None


def _formats_of(recipe: Recipe, task: Task) -> list[Formats]:
    """Every combination of a recipe's formats, each once."""
    levels = itertools.product(recipe.haystack, recipe.key, recipe.value)
    given = [
        {"haystack": haystack, "key": key, "value": value, **recipe.task.formats} for haystack, key, value in levels
    ]
    return list(dict.fromkeys(task.axes.fitted(Formats(**one)) for one in given))


def _shortest(data: DataConfig, name: str, materials: Materials) -> Least:
    """Of a recipe: every combination of its formats must fit, or training would fail at the first episode of one that
    does not. Raises ConfigError and EpisodeError for samples that cannot be built at any length."""
    recipe, at = data.recipes[name], f"data.recipes.{name}.task"
    task, least = recipe.task.create(materials), {}
    for formats in _formats_of(recipe, task):
        try:
            samples = [Factors(formats, 1, 0.5, index, split="train") for index in range(SAMPLES_PER_FORMAT)]
            least[formats] = min(map(task.shortest, samples))
        except EpisodeError:
            raise
        except ConfigError as error:  # such as a file with enough questions for probing and too few for training
            raise ConfigError(f"{at}.{error.key}", error.given, error.allowed, error.near) from None
    longest = max(least, key=least.__getitem__)
    return Least(least[longest], longest)
