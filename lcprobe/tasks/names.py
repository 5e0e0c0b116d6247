"""The names that configs use for the factors of an episode. Imports nothing, so that `--help` can read it."""

TEXTS = ("corpus", "noise", "words")
"""Haystacks that are a running text."""
CONTAINERS = ("python", "json", "csv", "markdown", "logs")
"""Haystacks that are documents of another kind than prose."""
HAYSTACKS = (*TEXTS, *CONTAINERS, "needles")
KINDS = ("words", "numbers", "uuids", "hex")
NOTHING = "-"
"""The one level of a factor that a task does not have; grids cannot ask for it, they collapse to it."""
CONTROLS = ("none", "zero_distance", "no_needle", "wrong_key", "query_only")
"""zero_distance: needle directly before the question (is the task acquired at all?). no_needle: the asked needle is
replaced by haystack. wrong_key: an absent key is asked, the old value counts. query_only: nothing but the question.
The last three measure what is scored without retrieval."""
RUNNING = tuple(name for name in HAYSTACKS if name != "needles")
"""Haystacks that a window of any length is cut from."""
