"""The names that configs use for the factors of an episode. Imports nothing, so that `--help` can read it."""

HAYSTACKS = ("corpus", "noise", "words", "needles")
KINDS = ("words", "numbers", "uuids", "hex")
CONTROLS = ("none", "zero_distance", "no_needle", "wrong_key", "query_only")
"""zero_distance: needle directly before the question (is the task acquired at all?). no_needle: the asked needle is
replaced by haystack. wrong_key: an absent key is asked, the old value counts. query_only: nothing but the question.
The last three measure what is scored without retrieval."""
