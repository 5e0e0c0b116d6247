"""Registries: what is parsed, when it is imported, and what is refused."""

import sys
from abc import ABC
from dataclasses import dataclass
from typing import ClassVar, Literal

import pytest

from lcprobe.choices import ByName, Choice, Registry, canonical, choices_in, choose
from lcprobe.errors import ConfigError, require
from lcprobe.models.mixers.contract import Mixer
from lcprobe.models.state import State
from lcprobe.schema import plain, resolve


class Shape(ABC):
    """The contract of this file's registry."""

    Config: ClassVar[type]
    corners: ClassVar[Literal[3, 4]] = 4


@dataclass(frozen=True)
class SquareConfig:
    side: float = 1.0
    inner: Choice | None = None

    def check(self, at: str) -> None:
        require(f"{at}.side", self.side, self.side > 0, "> 0")


class Square(Shape):
    Config = SquareConfig

    def __init__(self, config: SquareConfig):
        self.config = config


class Stranger:
    Config = SquareConfig


class WithoutSettings(Shape):
    Config = dict


class Unfinished(Shape):
    pass


class Pentagon(Square):
    corners = 5


class NotYetAMixer(Mixer):
    Config = SquareConfig
    state_type = State


HERE = __name__
SHAPES = Registry(
    f"{HERE}:Shape",
    {
        "square": f"{HERE}:Square",
        "stranger": f"{HERE}:Stranger",
        "bare": f"{HERE}:WithoutSettings",
        "unfinished": f"{HERE}:Unfinished",
        "pentagon": f"{HERE}:Pentagon",
        "absent": "a_module_that_is_not_there:Thing",
    },
)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, HERE, sys.modules[Square.__module__])


def test_parsing_checks_the_name_and_imports_nothing():
    choice = SHAPES.convert({"type": "absent", "side": 2}, "shape")
    assert (choice.name, choice.settings) == ("absent", {"side": 2})
    with pytest.raises(ModuleNotFoundError):
        choice.resolve()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("squar", "shape.type: .*did you mean 'square'"),
        ({"side": 2}, "shape.type: given 'nothing'"),
        ({"type": 3}, "shape.type: given 3"),
        (7, "shape: given 7; allowed: a mapping with `type`"),
    ],
)
def test_a_wrong_name_is_one_line(written, message):
    with pytest.raises(ConfigError, match=message):
        SHAPES.convert(written, "shape")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sid": 2}, r"shape\.sid: .*unknown key.*did you mean 'side'"),
        ({"side": "big"}, r"shape\.side: given 'big'"),
        ({"side": -1}, r"shape\.side: given -1"),
    ],
)
def test_settings_are_checked_when_a_choice_is_resolved(settings, message):
    with pytest.raises(ConfigError, match=message):
        resolve({"outer": [SHAPES.convert({"type": "square", **settings}, "shape")]})


def test_what_breaks_the_contract_is_a_defect():
    with pytest.raises(TypeError, match="is not a subclass"):
        SHAPES.load("stranger")
    with pytest.raises(TypeError, match="dataclass"):
        SHAPES.load("bare")
    with pytest.raises(TypeError, match="no class attribute Config, which Shape requires"):
        SHAPES.load("unfinished")
    with pytest.raises(TypeError, match=r"corners is 5; allowed: 3 \| 4"):
        SHAPES.load("pentagon")


def test_a_mixer_whose_settings_are_no_mixer_config_is_refused():
    mixers = Registry("lcprobe.models.mixers.contract:Mixer", {"square": f"{HERE}:NotYetAMixer"})
    with pytest.raises(TypeError, match="Config is not a subclass of MixerConfig"):
        mixers.load("square")


def test_a_choice_remembers_how_it_was_written_and_equals_by_meaning():
    short, long = choose(SHAPES, "square", "a"), choose(SHAPES, {"type": "square", "side": 1}, "b")
    assert (plain(short), plain(long)) == ("square", {"type": "square", "side": 1})
    assert short != long
    assert canonical(short) == canonical(long)
    assert canonical(short) != canonical(choose(SHAPES, {"type": "square", "side": 2}, "c"))
    assert isinstance(short.create(), Square)
    assert short.create().config.side == 1.0


def test_an_entry_of_a_mapping_may_leave_out_its_own_name():
    parsed = ByName(SHAPES).convert({"square": {"side": 3}, "other": {"type": "square"}}, "shapes")
    assert parsed["square"].config.side == 3
    assert plain(parsed["square"]) == {"side": 3}
    assert parsed["other"].name == "square"
    with pytest.raises(ConfigError, match=r"shapes\.other\.type: given 'nothing'"):
        ByName(SHAPES).convert({"other": {"side": 3}}, "shapes")


def test_the_choices_of_a_config_are_found():
    inner = choose(SHAPES, "square", "x")
    assert list(choices_in(SquareConfig(inner=inner))) == [inner]
    assert list(choices_in(SquareConfig())) == []
