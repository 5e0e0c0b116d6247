"""Continued training at a longer length with an extension (`train.extend`): what it extends is known from the run in
`train.from`.

The extension replaces that of the source, it is not put on top of it: its factor counts from the training length of
the first run, which was trained without one (64 -> 128 -> 256 tokens: factors 2 and 4 of 64), as YaRN's own chain of
runs does (Peng et al. 2023, arXiv 2309.00071, sec. 4.1). Encodings are built for that length too, so that the first
step starts from exactly the source under `pe.extend` with the same method and factor.
"""

from dataclasses import replace
from pathlib import Path

from lcprobe.config import Config, parse
from lcprobe.errors import ConfigError, DataError, require
from lcprobe.schema import plain
from lcprobe.studies.status import read_run_config


def with_extension(config: Config, source: Config | None) -> Config:
    """A run's config with the factor and the length of its `train.extend`. source: the config of the run of the study
    that it starts from; None: `train.from` is a folder, or there is none.

    Raises ConfigError for an extension without a run to start from, one that extends nothing, one together with
    train.switch, and for none where the source was trained with one.
    """
    train, extension = config.train, config.train.extend
    if train.from_ is None:
        allowed = "null without train.from, the run whose training length it extends"
        require("train.extend", plain(extension), extension is None, allowed)
        return config
    source = _config_of(Path(train.from_)) if source is None else source
    if source is None:  # not a run's folder, which is an error of its own
        return config
    earlier = source.train.extend
    if extension is None:
        allowed = f"a method: {train.from_} was trained with {'' if earlier is None else earlier.label}"
        require("train.extend", None, earlier is None, allowed)
        return config
    if train.switch is not None:
        raise ConfigError("train.switch", plain(train.switch), "null with train.extend: both change the encodings")
    original = source.train.context_length if earlier is None else earlier.original_length
    assert original is not None, "a run that was planned"
    planned = extension.planned(original, train.context_length)
    length = config.model.context_length or source.model.context_length or original
    return replace(config, model=replace(config.model, context_length=length), train=replace(train, extend=planned))


def _config_of(folder: Path) -> Config | None:
    """The config of a run's or checkpoint's folder; None where there is none."""
    try:
        return parse(read_run_config(folder))
    except DataError:
        return None
