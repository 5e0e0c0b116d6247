"""The names that configs use for the factors of an episode. Imports nothing of ours, so that `--help` can read it."""

from typing import Literal

TEXTS = ("corpus", "noise", "words")
"""Haystacks that are a running text."""
DOCUMENTS = ("python", "json", "csv", "markdown", "logs")
"""Haystacks that are documents of kinds other than prose."""
HAYSTACKS = (*TEXTS, *DOCUMENTS, "needles")
KINDS = ("words", "numbers", "uuids", "hex")
"""Formats of keys and values."""
NOTHING = "-"
"""The one level of a factor that a task does not have; grids cannot list it, they collapse to it."""
CONTROLS = ("none", "zero_distance", "no_needle", "wrong_key", "query_only")
"""zero_distance: needle directly before the question (is the task learned at all?). no_needle: the target needle is
replaced by haystack. wrong_key: the question is about an absent key, the old value counts. query_only: nothing but
the question. The last three measure the score without retrieval."""
Split = Literal["probe", "train"]
"""What episodes are for: the two share no draw, no question of a file, and no haystack but noise."""
Distance = Literal["uniform", "recent", "log"]
"""How the depths of needles are drawn: anywhere, in the last quarter of the haystack, or at distances from its end
that are log-uniform."""
RUNNING = tuple(name for name in HAYSTACKS if name != "needles")
"""Haystacks from which a window of any length is cut."""
