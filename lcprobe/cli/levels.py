"""Pages of the levels of an episode's factors: haystacks, formats of keys and values, controls (`--help hex`)."""

from collections.abc import Mapping
from typing import NamedTuple


class Factor(NamedTuple):
    """A factor whose levels configs name. one: what a level is called; where: keys that take it; levels: what each
    is."""

    one: str
    where: str
    levels: Mapping[str, str]


FACTORS: dict[str, Factor] = {
    "haystacks": Factor(
        "haystack",
        "probe.grids[i].haystack, data.recipes.NAME.haystack",
        {
            "corpus": "held-out documents of data.corpus, from a random place for each sample",
            "noise": "five short sentences, repeated (RULER's noise haystack, arXiv 2404.06654)",
            "words": "common words in random order",
            "python": "Python source: the standard library of the running interpreter",
            "json": "JSON, one object a line, drawn at random",
            "csv": "comma-separated rows, drawn at random",
            "markdown": "Markdown tables under headings, drawn at random",
            "logs": "log lines of servers, drawn at random",
            "needles": "lines that look like the needles, with other keys and values",
        },
    ),
    "value_formats": Factor(
        "format of keys and values",
        "probe.grids[i].key, probe.grids[i].value, data.recipes.NAME.key, data.recipes.NAME.value",
        {
            "words": "falcon, or amber-falcon where many are needed",
            "numbers": "whole numbers; a task's settings have their digits",
            "uuids": "128-bit identifiers: 3f2c9a71-5b0e-4c1d-9e47-0a6b8d2f7c11",
            "hex": "hexadecimal digits, as many tokens as a number has",
        },
    ),
    "controls": Factor(
        "control",
        "probe.grids[i].controls",
        {
            "none": "the task itself",
            "zero_distance": "the needle directly before the question: is the task learned at all?",
            "no_needle": "the target needle is replaced by haystack; measures the score without retrieval",
            "wrong_key": "the question is about an absent key, and the old value counts: are keys looked up?",
            "query_only": "nothing but the question; measures the score without a context",
        },
    ),
}
"""By the name of their list."""


def level_pages(word: str) -> list[str]:
    """A page for each factor that has a level of this name."""
    found = [(name, factor) for name, factor in FACTORS.items() if word in factor.levels]
    return [
        f"{factor.one} {word}: in {factor.where}\n\n{factor.levels[word]}\n\nothers: --help {name}"
        for name, factor in found
    ]
