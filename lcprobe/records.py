"""Records: one row a query, with every factor and score as a plain column; and one row a measurement on plain text. What
probing writes and analysis reads: a contract of the ground floor, so that neither room imports the other."""

from typing import Any

import pyarrow as pa

SCHEMA = pa.schema(
    [
        # who was asked
        ("model", pa.string()),  # run name within the study, and the label of a method: rope, rope+yarn
        ("checkpoint", pa.string()),  # digest of the weights, 16 hex
        ("step", pa.int64()),
        ("tokens", pa.int64()),  # trained on so far
        ("extension", pa.string()),  # label of the method that changed the model; none: as trained
        ("factor", pa.float64()),  # times the training length that it reaches for at this length
        # what was asked: factors
        ("suite", pa.string()),
        ("task", pa.string()),  # name in probe.tasks
        ("haystack", pa.string()),
        ("key_format", pa.string()),
        ("value_format", pa.string()),
        ("control", pa.string()),  # none | zero_distance | no_needle | wrong_key | query_only
        ("length", pa.int32()),  # tokens of the episode, BOS and answer included
        ("depth", pa.float64()),  # as asked, 0 .. 1
        ("index", pa.int32()),  # sample: same key, value, haystack offset, question in every cell and model
        ("query", pa.int16()),  # question of the episode, 0 first
        # what came of the factors
        ("realised_depth", pa.float64()),
        ("distance", pa.int32()),  # tokens from the end of the asked value to the answer; null without a needle
        ("hops", pa.int16()),  # facts in the context that lead to the one with the value, 0 where that one is enough
        ("via_distance", pa.int32()),  # tokens from the end of the last of them to the answer; null without
        ("rounds", pa.float64()),  # how often the window goes round its stream: above 1 the haystack repeats itself
        ("haystack_start", pa.int64()),  # first token of the window in its stream
        ("prompt_tokens", pa.int32()),
        ("answer_tokens", pa.int16()),
        ("chance", pa.float64()),  # choosing a value of the context without looking at the key
        ("n_candidates", pa.int16()),
        # scores
        ("exact", pa.bool_()),  # every answer token right
        ("first_token", pa.bool_()),  # the first that is not white space
        ("token_accuracy", pa.float64()),
        ("log_likelihood", pa.float64()),  # of the answer, nats, all tokens
        ("rank", pa.int16()),  # of the true value among n_candidates by log-likelihood a token, 1 best
        ("distractor_hit", pa.bool_()),  # greedy text is another value of the context
        ("answer", pa.string()),
        ("prediction", pa.string()),  # greedy continuation, as long as the answer
        ("scoring", pa.string()),  # teacher_forced | generate
        ("status", pa.string()),  # ok | oom
        ("batch", pa.int32()),  # questions scored together
        ("read_tokens", pa.int32()),  # of the prompt, not read for a question before it; null where nothing is read
        ("episode", pa.string()),  # digest of the token ids
    ]
)
NAMES = SCHEMA.names
CONTEXT_SCHEMA = pa.schema(
    [
        ("model", pa.string()),
        ("checkpoint", pa.string()),
        ("step", pa.int64()),
        ("tokens", pa.int64()),
        ("window", pa.int32()),  # of held-out text: the same in every model
        ("start", pa.int64()),  # its first token in the stream
        # loss | not_finite_predictions | state_rms | not_finite_state | state_bytes | remembrance
        ("measure", pa.string()),
        (
            "low",
            pa.int32(),
        ),  # tokens read before the first prediction; remembrance: first tokens that are dropped; else high
        ("high", pa.int32()),  # tokens read before the last prediction, or when the state is looked at
        ("kept", pa.int32()),  # remembrance: tokens that are left; else null
        ("value", pa.float64()),  # a mean over count, or a count
        ("count", pa.int32()),  # predictions or values behind it
    ]
)
Record = dict[str, Any]


def table_of(records: list[Record], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Records as a table of a schema. Raises KeyError for a record that lacks a column."""
    columns = {name: [record[name] for record in records] for name in schema.names}
    return pa.table(columns, schema=schema)
