"""Presets: names for tasks with everything set, formats included. `ruler/<task>` are RULER's 13 configurations
without shortcuts.

A preset is used wherever a task is configured, as it is or with settings on top:

    probe.tasks:
      s1: ruler/niah_single_1
      hard: {type: ruler/niah_multikey_1, n_keys: 16, formats: {haystack: words}}

A preset is a mapping that could be written out. `formats` (haystack, key, value: one level each) may be in any task's
mapping: the task then has these formats whatever a grid lists.

Source: Hsieh et al. 2024, RULER, arXiv 2404.06654. All differ from RULER's own in this: exactly L tokens with BOS and
answer, the target needle at a given depth, another haystack window and layout for every sample, the first answer
counts and not any substring of 128 tokens, and no task is solved by printing every value. "essay" is our `corpus`,
held-out documents.

    name             RULER's own                               here
    niah_single_1    noise, words -> numbers, one needle       a second needle with another key: chance 1/2, not 1
    niah_single_2    essay, words -> numbers, one needle       the same
    niah_single_3    essay, words -> uuids, one needle         the same
    niah_multikey_1  essay, 4 needles, one queried; listing    chance 1/4: the first answer counts
                     all four numbers scores 100
    niah_multikey_2  haystack of needles, words -> numbers     the same; chance 1 / lines
    niah_multikey_3  haystack of needles, uuids -> uuids       the same; chance 1 / lines
    niah_multivalue  essay, one key with 4 values, any order   all four in order, beside a second key with 4
    niah_multiquery  essay, 4 keys, all queried, any order     4 of 8 keys in turn: 4 values are never queried
    vt               noise, one chain of 4 hops, all           4 chains of 4 hops, the value of the last variable;
                     variables with its value                  chance 1/4
    cwe              10 common words x 30, rare ones x 3       10 common x 3n, 20 rare x n at every length; is a word
                     (x 6 and x 1 below 4K); name the ten;     common or rare: chance 1/2; no example
                     one example
    fwe              zeta (2.0) draws, vocabulary grows;       8n : 4n : 2n : n at every length; the first three in
                     name ranks 2 to 4, any order              order; chance is the word's share of the list
    qa_1             SQuAD paragraphs, any alias as a          generated facts, a closed set of answers; no files
                     substring                                 needed
    qa_2             HotpotQA paragraphs                       generated facts, two needed for an answer
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError, inside, require, unknown_name
from lcprobe.schema import Converter, Written
from lcprobe.tasks import TASKS
from lcprobe.tasks.names import HAYSTACKS, KINDS

if TYPE_CHECKING:
    from lcprobe.tasks.assembly import Task
    from lcprobe.tasks.text.haystack import Materials

MAX_COUNT = 1 << 16
"""Largest whole number among the settings of a task, such as words and steps."""
MAX_STRINGS, OF_STRINGS = 1 << 12, ("n_keys", "n_values", "n_queries", "pairs", "vocabulary")
"""Strings of a sample, of which no two may be alike, at most, and the settings that count them."""
FACTOR_LEVELS = {"haystack": HAYSTACKS, "key": KINDS, "value": KINDS}


def _niah(haystack: str, key: str, value: str, **counts: int) -> dict[str, Any]:
    formats = {"haystack": haystack, "key": key, "value": value}
    return {"type": "niah", "word_pairs": True, "digits": 7, **counts, "formats": formats}


PRESETS: dict[str, dict[str, Any]] = {
    "ruler/niah_single_1": _niah("noise", "words", "numbers", n_keys=2),
    "ruler/niah_single_2": _niah("corpus", "words", "numbers", n_keys=2),
    "ruler/niah_single_3": _niah("corpus", "words", "uuids", n_keys=2),
    "ruler/niah_multikey_1": _niah("corpus", "words", "numbers", n_keys=4),
    "ruler/niah_multikey_2": _niah("needles", "words", "numbers", n_keys=2),
    "ruler/niah_multikey_3": _niah("needles", "uuids", "uuids", n_keys=2),
    "ruler/niah_multivalue": _niah("corpus", "words", "numbers", n_keys=2, n_values=4),
    "ruler/niah_multiquery": _niah("corpus", "words", "numbers", n_keys=8, n_queries=4),
    "ruler/vt": {
        "type": "vt", "chains": 4, "hops": 4, "digits": 5,
        "formats": {"haystack": "noise", "key": "words", "value": "numbers"},
    },
    "ruler/cwe": {"type": "cwe", "common": 10, "rare": 20, "ratio": 3, "questions": 10, "formats": {"key": "words"}},
    "ruler/fwe": {"type": "fwe", "top": 3, "ratio": 2, "others": 20, "formats": {"value": "words"}},
    "ruler/qa_1": {"type": "qa", "hops": 1, "formats": {"haystack": "corpus"}},
    "ruler/qa_2": {"type": "qa", "hops": 2, "formats": {"haystack": "corpus"}},
}  # fmt: skip


class TaskChoice(Written):
    """A configured task. settings: written out, without formats; formats: levels of factors that are fixed for it."""

    def __init__(self, written: Any, settings: dict[str, Any], choice: Choice, formats: dict[str, str]):
        self._written, self.settings, self.choice, self.formats = written, settings, choice, formats

    @property
    def written(self) -> Any:
        """The name of a task or preset, or a mapping with `type`."""
        return self._written

    def resolve(self) -> None:
        """See Written. Raises ConfigError for counts above MAX_COUNT too."""
        self.choice.resolve()
        for field in fields(self.choice.config):
            count = getattr(self.choice.config, field.name)
            most = MAX_STRINGS if field.name in OF_STRINGS else MAX_COUNT
            fits = not isinstance(count, int) or count <= most
            require(f"{self.choice.key}.{field.name}", count, fits, f"at most {most}")

    def create(self, materials: "Materials") -> "Task":
        """The task. Raises ConfigError or DataError where its settings name a file that is missing."""
        with inside(self.choice.key):
            return self.choice.create(materials)


class _TaskConverter(Converter):
    def convert(self, value: Any, key: str) -> TaskChoice:
        """A name, or `{type: name, ...}` with settings on top and `formats`; the name is a task's or a preset's."""
        if isinstance(value, TaskChoice):
            return value
        given = {"type": value} if isinstance(value, str) else value
        if not isinstance(given, Mapping):
            raise ConfigError(key, value, self.allowed())
        settings, name = dict(given), given.get("type")
        formats = _formats(settings.pop("formats", {}), f"{key}.formats")
        if isinstance(name, str) and "/" in name:
            if name not in PRESETS:
                raise unknown_name(f"{key}.type", name, PRESETS)
            preset = dict(PRESETS[name])
            formats = {**preset.pop("formats"), **formats}
            settings = {**preset, **settings, "type": preset["type"]}
        return TaskChoice(value, settings, TASKS.convert(settings, key), formats)

    def allowed(self) -> str:
        return "the name of a task or preset, or a mapping with `type`"


TASK = _TaskConverter()
"""Converter of `probe.tasks.NAME` and `data.recipes.NAME.task`."""


def choose_task(given: Any, key: str) -> TaskChoice:
    """A task for code that is not given a parsed config. Raises ConfigError for unknown names, settings and
    formats."""
    choice = TASK.convert(given, key)
    choice.resolve()
    return choice


def _formats(given: Any, key: str) -> dict[str, str]:
    if not isinstance(given, Mapping):
        raise ConfigError(key, given, "a mapping with haystack, key, value, one level each")
    for factor, level in given.items():
        if factor not in FACTOR_LEVELS:
            raise unknown_name(key, factor, FACTOR_LEVELS)
        if level not in FACTOR_LEVELS[factor]:
            raise unknown_name(f"{key}.{factor}", level, FACTOR_LEVELS[factor])
    return dict(given)
