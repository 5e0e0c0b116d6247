"""What a config asks of its tokenizer and lengths, tried before anything is written."""

import itertools

from lcprobe.config import Config
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.probing.grid import TaskSet
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import load_tokenizer

SAMPLES_PER_FORMAT = 4


def check_tasks_fit(config: Config, training: bool) -> None:
    """Build episodes of the probe's grids, and of the recipes that are trained on, over common words in the corpus's place.

    Raises ConfigError for a tokenizer or task that cannot be made and for a mixture's length that none of a recipe's samples
    fits, EpisodeError for formats that the tokenizer does not have.
    """
    tokenizer = load_tokenizer(config.data.tokenizer, config.data.bos)
    try:
        materials = Materials(
            tokenizer, TokenStream.from_text("corpus", Materials(tokenizer).stream("words").text, tokenizer)
        )
        if config.probe.tasks:
            TaskSet(config.probe, materials).plan(config.probe.grids, config.train.context_length)
        if training:
            _recipes(config, materials)
    except EpisodeError as error:
        allowed = f"{error.allowed} (data.tokenizer is {config.data.tokenizer})"
        raise EpisodeError(error.key, error.given, allowed, error.near) from None


def _recipes(config: Config, materials: Materials) -> None:
    least: dict[str, int] = {}
    for i, stage in enumerate(config.data.mixture):
        for name in stage.episodes:
            if name not in least:
                least[name] = _shortest(config, name, materials)
            for fraction in stage.lengths:
                if fraction * config.train.context_length < least[name]:
                    where = f"data.mixture[{i}].episodes.{name}"
                    raise ConfigError(where, f"{fraction} x context_length", f"at least {least[name]} tokens")


def _shortest(config: Config, name: str, materials: Materials) -> int:
    recipe, at = config.data.recipes[name], f"data.recipes.{name}.task"
    task, found = recipe.task.create(materials), []
    for haystack, key, value in itertools.product(recipe.haystack, recipe.key, recipe.value):
        formats = task.axes.fitted(
            Formats(**{"haystack": haystack, "key": key, "value": value, **recipe.task.formats})
        )
        for index in range(SAMPLES_PER_FORMAT):
            try:
                found.append(task.shortest(Factors(formats, config.train.context_length, 0.5, index, split="train")))
            except EpisodeError:
                raise
            except ConfigError as error:  # of a file, say: probing may have enough of it and training not
                raise ConfigError(f"{at}.{error.key}", error.given, error.allowed, error.near) from None
    return min(found)
