"""Checks of a tokenizer and a corpus that need no length: whether episodes can be written with the one, and haystacks
be cut from the other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from lcprobe.config import Config
from lcprobe.data.config import Recipe
from lcprobe.data.splits import check_words
from lcprobe.errors import EpisodeError
from lcprobe.probing.config import Grid
from lcprobe.tasks.names import Split
from lcprobe.tasks.presets import TaskChoice
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import load_tokenizer, tokenizer_here

COUNTED_WITH = "shipped"
"""The tokenizer that stands in a plan for one that is on the hub and not here: lengths are in tokens, whatever the
tokenizer."""


def counted_here(config: Config) -> tuple[Config, str]:
    """A run's config for a plan, which asks no network: with a tokenizer that is here, and a note where it is not its
    own."""
    data = config.data
    if tokenizer_here(data.tokenizer, data.bos) is not None:
        return config, ""
    note = (
        f"{data.tokenizer} is not here: a vocabulary of {config.model.vocab_size:,}, lengths counted with the "
        f"{COUNTED_WITH} tokenizer"
    )
    return replace(config, data=replace(data, tokenizer=COUNTED_WITH, bos=None)), note


def check_text_fits(config: Config, training: bool) -> None:
    """Raises EpisodeError, naming the tokenizer, where episodes cannot be written with a config's tokenizer, or
    haystacks cannot be cut from its corpus; ConfigError for a task that cannot be created. training: whether episodes
    of the mixture and of probes while training are asked for too. Reads little of the corpus."""
    asked, splits, data = _asked(config, training), corpus_splits(config, training), config.data
    with naming(data.tokenizer):
        for one in asked:
            one.check_formats(over_words(data.tokenizer, data.bos))
        if splits:
            check_words(data, load_tokenizer(data.tokenizer, data.bos), splits)


def corpus_splits(config: Config, training: bool) -> set[Split]:
    """The splits of the corpus that haystacks of a probe or a training episode are cut from."""
    splits: set[Split] = {one.split for one in _asked(config, training) if "corpus" in one.levels("haystack")}
    if config.probe.context is not None:
        splits.add("probe")
    return splits


class _Asked(NamedTuple):
    """A task with the formats that are asked for, and the split that its episodes belong to."""

    task: TaskChoice
    formats: Grid | Recipe
    split: Split

    def levels(self, factor: str) -> Sequence[str]:
        """Levels of haystack, key or value that its episodes have."""
        allowed = self.task.choice.cls.axes.levels(factor)
        if len(allowed) == 1:
            return allowed
        listed = {"haystack": self.formats.haystack, "key": self.formats.key, "value": self.formats.value}[factor]
        given = [self.task.formats[factor]] if factor in self.task.formats else listed
        return [level for level in given if level in allowed]

    def check_formats(self, materials: Materials) -> None:
        """Raises EpisodeError for keys or values that the tokenizer does not give back."""
        task = self.task.create(materials)
        for kind in self.levels("key"):
            task.check_format("key", kind)
        for kind in self.levels("value"):
            task.check_format("value", kind)


def _asked(config: Config, training: bool) -> list[_Asked]:
    """What a config asks for: the tasks of its grids, and for training those of its mixture."""
    probe, data = config.probe, config.data
    grids = [grid for grid in [*probe.grids, probe.while_training if training else None] if grid is not None]
    probed = [_Asked(probe.tasks[name], grid, "probe") for grid in grids for name in grid.tasks or probe.tasks]
    names = dict.fromkeys(name for stage in data.mixture for name in stage.episodes) if training else ()
    return [*probed, *(_Asked(data.recipes[name].task, data.recipes[name], "train") for name in names)]


@lru_cache(maxsize=4)
def over_words(tokenizer: str, bos: str | None) -> Materials:
    """Materials with common words in place of the corpus."""
    loaded = load_tokenizer(tokenizer, bos)
    return Materials(loaded, TokenStream.from_text("corpus", Materials(loaded).stream("words").text, loaded))


@contextmanager
def naming(tokenizer: str) -> Iterator[None]:
    """Errors about episodes name the tokenizer."""
    try:
        yield
    except EpisodeError as error:
        if error.key == "probe.equal_length":  # says which of several it is about
            raise
        allowed = f"{error.allowed} (data.tokenizer is {tokenizer})"
        raise EpisodeError(error.key, error.given, allowed, error.near) from None
