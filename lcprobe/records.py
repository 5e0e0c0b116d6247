"""Records: one row per query, with every factor and score as a plain column; and one row per measurement on plain
text. Probing writes them and analysis reads them: a contract on the ground floor, so that neither room imports the
other."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class Column:
    """A column of the store. type: of its values, by the name that pyarrow has for it. meaning: one sentence."""

    name: str
    type: str
    meaning: str


COLUMNS = (
    # the model
    Column("model", "string", "Run of the study, and label of the method applied to it: rope, rope+yarn."),
    Column("checkpoint", "string", "Digest of the weights, 16 hexadecimal digits."),
    Column("step", "int64", "Optimiser steps that the model was trained for."),
    Column("tokens", "int64", "Tokens that the model was trained on."),
    Column("engine", "string", "What runs the model: native, transformers, vllm or openai."),
    Column("extension", "string", "Label of the method that changes the model at evaluation; none: as trained."),
    Column("factor", "double", "Multiple of the training length that the method is set for; 1 as trained."),
    # the factors of the episode
    Column("suite", "string", "Version of the tasks: records of two versions are not comparable."),
    Column("task", "string", "Name of the task in probe.tasks."),
    Column("task_code", "string", "Digest of the code that made the episode, comments aside; 16 hexadecimal digits."),
    Column("haystack", "string", "Kind of text that fills the context."),
    Column("key_format", "string", "Format of the keys."),
    Column("value_format", "string", "Format of the values."),
    Column("control", "string", "Control condition: none, zero_distance, no_needle, wrong_key or query_only."),
    Column(
        "length",
        "int32",
        "Tokens of the episode, BOS and answer included; of the reference tokenizer where equal_length is text.",
    ),
    Column("depth", "double", "Centre of the cell's stratum of depth, 0 at the start and 1 at the end."),
    Column("strata", "int16", "Strata of equal width that depth is divided into; 1: anywhere."),
    Column("drawn_depth", "double", "Relative depth of the target needle that was drawn in the stratum."),
    Column("index", "int32", "Sample: same key, value, haystack offset and question in every cell and model."),
    Column("query", "int16", "Number of the question within the episode, from 0."),
    # the tokens of the episode
    Column("tokenizer", "string", "Digest of the tokenizer and BOS that the model reads, 16 hexadecimal digits."),
    Column(
        "equal_length",
        "string",
        "Which lengths are equal: tokens (of each model's own tokenizer) or text (the same characters).",
    ),
    Column("episode_tokens", "int32", "Tokens of the episode under the model's own tokenizer."),
    Column("characters", "int32", "Characters of the episode, prompt and answers; BOS has none."),
    Column("text", "string", "Digest of these characters: equal for all models where equal_length is text."),
    Column("template", "string", "Prompt template around the episode; chat: the model's own; none: none."),
    # what follows from the factors
    Column("realised_depth", "double", "Relative depth at which the target needle is placed; 0 without a needle."),
    Column("distance", "int32", "Tokens from the end of the target value to the answer; null without a needle."),
    Column("hops", "int16", "Facts in the context that lead to the one with the value; 0 where that one is enough."),
    Column(
        "via_distance", "int32", "Tokens from the end of the last of these facts to the answer; null without any."
    ),
    Column("rounds", "double", "Length of the haystack over that of its source text: above 1 it repeats itself."),
    Column("haystack_start", "int64", "Position in the source text of the haystack's first token."),
    Column("prompt_tokens", "int32", "Tokens before the answer."),
    Column("answer_tokens", "int16", "Tokens of the answer."),
    Column("chance", "double", "Accuracy of choosing a value of the context without looking at the key."),
    Column("n_candidates", "int16", "Values of the context that `rank` is among, the true one included."),
    # scores
    Column("exact", "bool", "Whether every token of the answer is right."),
    Column("first_token", "bool", "Whether the first token of the answer that is not white space is right."),
    Column("token_accuracy", "double", "Share of the answer's tokens that are right."),
    Column("log_likelihood", "double", "Log-likelihood of the answer in nats, summed over its tokens."),
    Column("rank", "int16", "Rank of the true value among the candidates by log-likelihood per token, 1 is best."),
    Column("distractor_hit", "bool", "Whether the greedy text is another value of the context."),
    Column("answer", "string", "Text of the right answer."),
    Column("prediction", "string", "Greedy continuation, as long as the answer."),
    Column("continuation", "string", "Greedy text of probe.continuation tokens after the prompt; null without."),
    Column("substring", "double", "Share of the references that occur in it, ignoring case: RULER's score."),
    Column(
        "scoring",
        "string",
        "How the answer was scored: teacher_forced, generate, or external (an output of another harness).",
    ),
    Column(
        "status",
        "string",
        "ok; oom where memory ran out, missing where another harness gave no output: scores are then null.",
    ),
    Column("batch", "int32", "Questions that were scored together."),
    Column(
        "read_tokens", "int32", "Prompt tokens read for this question and for none before it; null where none are."
    ),
    Column("episode", "string", "Digest of the token ids."),
)
"""Of `records/`: one row per query."""
CONTEXT_COLUMNS = (
    Column("model", "string", "Run of the study, and label of the method applied to it: rope, rope+yarn."),
    Column("checkpoint", "string", "Digest of the weights, 16 hexadecimal digits."),
    Column("step", "int64", "Optimiser steps that the model was trained for."),
    Column("tokens", "int64", "Tokens that the model was trained on."),
    Column("window", "int32", "Number of the window of held-out text: the same windows for every model."),
    Column("start", "int64", "Position in the held-out text of the window's first token."),
    Column(
        "measure",
        "string",
        "loss, not_finite_predictions, state_rms, not_finite_state, state_bytes or remembrance.",
    ),
    Column(
        "low",
        "int32",
        "Tokens read before the first prediction; dropped first tokens (remembrance); high (states).",
    ),
    Column("high", "int32", "Tokens read before the last prediction, or when the state is measured."),
    Column("kept", "int32", "Tokens kept (remembrance); else null."),
    Column("value", "double", "The measurement: a mean over count, or a number; null where it is not finite."),
    Column("count", "int32", "Predictions or values that the measurement is over."),
)
"""Of `context/`: one row per measurement on plain text."""


def _schema(columns: Iterable[Column]) -> pa.Schema:
    return pa.schema([(column.name, pa.type_for_alias(column.type)) for column in columns])


SCHEMA, CONTEXT_SCHEMA = _schema(COLUMNS), _schema(CONTEXT_COLUMNS)
NAMES = SCHEMA.names
Record = dict[str, Any]


def table_of(records: list[Record], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Records as a table of a schema. Raises KeyError for a record that lacks a column."""
    columns = {name: [record[name] for record in records] for name in schema.names}
    return pa.table(columns, schema=schema)


def joined(tables: Sequence[pa.Table], schema: pa.Schema = SCHEMA) -> pa.Table:
    """Tables of a schema as one, their columns shared and not copied; none: an empty one."""
    return pa.concat_tables(tables) if tables else schema.empty_table()
