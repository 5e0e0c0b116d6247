"""Checks that a config's tasks fit its tokenizer and lengths, before anything is written."""

import itertools

from lcprobe.config import Config
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.probing.grid import TaskSet
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import load_tokenizer

SAMPLES_PER_FORMAT = 4
"""Samples per combination of formats; a length must fit the shortest."""


def check_tasks_fit(config: Config, training: bool) -> None:
    """Build episodes of the probe's grids and, for training, of the mixture's recipes, over common words instead of
    the corpus.

    Raises ConfigError for a tokenizer or task that cannot be created and for a length of the mixture that is too
    short for all samples of a recipe, EpisodeError for formats that the tokenizer cannot represent.
    """
    tokenizer = load_tokenizer(config.data.tokenizer, config.data.bos)
    try:
        materials = Materials(
            tokenizer, TokenStream.from_text("corpus", Materials(tokenizer).stream("words").text, tokenizer)
        )
        if config.probe.tasks:
            TaskSet(config.probe, materials).plan(config.probe.grids, config.train.context_length)
        if training:
            _check_recipes(config, materials)
    except EpisodeError as error:
        allowed = f"{error.allowed} (data.tokenizer is {config.data.tokenizer})"
        raise EpisodeError(error.key, error.given, allowed, error.near) from None


def _check_recipes(config: Config, materials: Materials) -> None:
    shortest: dict[str, int] = {}
    for i, stage in enumerate(config.data.mixture):
        for name in stage.episodes:
            if name not in shortest:
                shortest[name] = _shortest(config, name, materials)
            for seqlen in stage.seqlens(config.train.context_length, f"data.mixture[{i}]"):
                if seqlen < shortest[name]:
                    where = f"data.mixture[{i}].episodes.{name}"
                    raise ConfigError(where, f"{seqlen} tokens", f"at least {shortest[name]} tokens")


def _shortest(config: Config, name: str, materials: Materials) -> int:
    recipe, at = config.data.recipes[name], f"data.recipes.{name}.task"
    task, lengths = recipe.task.create(materials), []
    for haystack, key, value in itertools.product(recipe.haystack, recipe.key, recipe.value):
        formats = task.axes.fitted(
            Formats(**{"haystack": haystack, "key": key, "value": value, **recipe.task.formats})
        )
        for index in range(SAMPLES_PER_FORMAT):
            try:
                lengths.append(
                    task.shortest(Factors(formats, config.train.context_length, 0.5, index, split="train"))
                )
            except EpisodeError:
                raise
            except ConfigError as error:  # such as a file with enough questions for probing and too few for training
                raise ConfigError(f"{at}.{error.key}", error.given, error.allowed, error.near) from None
    return min(lengths)
