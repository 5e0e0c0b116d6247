"""Several tokenizers in one study: which lengths are equal, the proof that texts are, and which models can be paired.

tokens    a length counts each model's own tokens: the texts of two tokenizers differ, and are not paired
text      all models read the same characters; a length counts tokens of the reference, which is the first model's
          tokenizer, and so does a training length, at the rate at which the model's own tokens were realised
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lcprobe.analysis.inputs import RunFacts, StudyFacts
from lcprobe.errors import DataError

FACTORS = ("task", "haystack", "key_format", "value_format", "control", "length", "depth", "index")
"""What the same text has in common for all models."""
NOT_PAIRED = "different tokenizers: paired only under probe.equal_length=text"


@dataclass(frozen=True)
class TokenizerUse:
    """One tokenizer of a study. tokens, characters: of all episodes that its models read, without query_only."""

    digest: str
    models: tuple[str, ...]
    tokens: int
    characters: int

    @property
    def tokens_per_character(self) -> float:
        """Realised tokens per character of the episodes; NaN without any."""
        return self.tokens / self.characters if self.characters else float("nan")


@dataclass(frozen=True)
class Tokenizers:
    """The tokenizers of a study, the reference first. same_texts: episodes whose characters were found equal for all
    models, by digest; None where texts need not be equal."""

    uses: tuple[TokenizerUse, ...]
    same_texts: int | None


NO_TOKENIZERS = Tokenizers((), None)


def several_tokenizers(study: StudyFacts) -> bool:
    """Whether some models of a study read other tokens than others."""
    return len({run.tokenizer for run in study.runs}) > 1


def length_note(study: StudyFacts) -> str:
    """What a length counts, for captions; empty for one tokenizer."""
    if not several_tokenizers(study):
        return ""
    if study.equal_length == "tokens":
        return "Length in each model's own tokens: equal lengths are not the same text."
    first = study.runs[0]
    return f"Length in tokens of {first.base or first.name}: the same text for all."


def own_tokens_note(study: StudyFacts) -> str:
    """What distances and positions count, for captions; empty for one tokenizer."""
    return "Tokens are each model's own." if several_tokenizers(study) else ""


def not_paired(study: StudyFacts, names: Sequence[str]) -> str | None:
    """Why models cannot be paired by sample, or None: samples of different tokenizers are only pairs where the text
    is equal."""
    used = {run.tokenizer for run in study.runs if run.name in names}
    return NOT_PAIRED if len(used) > 1 and study.equal_length == "tokens" else None


def tokenizers_of(study: StudyFacts, records: pa.Table) -> Tokenizers:
    """What the records say about a study's tokenizers.

    Raises DataError for records of another notion of equal length, of another tokenizer than a run's, and, where the
    text is to be equal, for a sample whose characters differ between two models.
    """
    notions = sorted({*records["equal_length"].unique().to_pylist()} - {study.equal_length})
    if notions and several_tokenizers(study):
        raise DataError(
            f"records: given equal_length {', '.join(notions)}; allowed: {study.equal_length}, as the study says"
        )
    sizes = records.group_by(["model", "tokenizer", "control"])
    rows = sizes.aggregate([("episode_tokens", "sum"), ("characters", "sum")]).to_pylist()
    rows = [row for row in rows if row["control"] != "query_only"]
    uses = []
    for digest in dict.fromkeys(run.tokenizer for run in study.runs):
        runs = [run for run in study.runs if run.tokenizer == digest]
        own = [row for row in rows if row["model"] in {run.name for run in runs}]
        for row in own:
            if digest and row["tokenizer"] != digest:
                given = f"{row['model']} under tokenizer {row['tokenizer']}"
                raise DataError(f"records: given {given}; allowed: {digest}, the run's own")
        models = tuple(dict.fromkeys(run.base or run.name for run in runs))
        tokens, characters = (sum(row[f"{name}_sum"] for row in own) for name in ("episode_tokens", "characters"))
        uses.append(TokenizerUse(digest, models, tokens, characters))
    if study.equal_length == "tokens" or not several_tokenizers(study):
        return Tokenizers(tuple(uses), None)
    texts = records.group_by(list(FACTORS)).aggregate([("text", "count_distinct")])
    differ = np.flatnonzero(texts["text_count_distinct"].to_numpy() > 1)
    if len(differ):
        first = texts.select(list(FACTORS)).slice(int(differ[0]), 1).to_pylist()[0]
        where = ", ".join(f"{name} {value}" for name, value in first.items())
        raise DataError(
            f"records: {len(differ)} of {len(texts)} episodes are different texts for different models ({where}); "
            "allowed: the same characters for all, as probe.equal_length=text"
        )
    return Tokenizers(tuple(uses), len(texts))


def in_tokens_of_reference(study: StudyFacts, records: pa.Table) -> StudyFacts:
    """The study with every training length in the tokens that lengths count, where these are another tokenizer's."""
    if study.equal_length == "tokens" or not several_tokenizers(study):
        return study
    asked = pc.not_equal(records["control"], "query_only")
    length, own = (records[name].to_numpy() for name in ("length", "episode_tokens"))

    def converted(run: RunFacts) -> RunFacts:
        whole = pc.and_(asked, pc.equal(records["model"], run.name)).to_numpy()
        if run.tokenizer == study.runs[0].tokenizer or not whole.any():
            return run
        rate = float(length[whole].sum() / own[whole].sum())
        return replace(run, context_length=round(run.context_length * rate), own_context_length=run.context_length)

    return replace(study, runs=[converted(run) for run in study.runs])


def tokenizer_texts(study: StudyFacts, tokenizers: Tokenizers) -> Iterator[tuple[str, bool]]:
    """Sentences about several tokenizers, and whether each limits the study."""
    if not several_tokenizers(study):
        return
    sides = "; ".join(
        f"{use.digest[:12]}: {', '.join(use.models)}, {use.tokens_per_character:.3f} tokens per character"
        for use in tokenizers.uses
    )
    text = f"{len(tokenizers.uses)} tokenizers ({sides})."
    if study.equal_length == "tokens":
        yield (
            f"{text} A length counts each model's own tokens: at equal length the texts differ, and models with "
            "different tokenizers are not compared by paired tests (probe.equal_length=text pairs them).",
            True,
        )
    else:
        first = study.runs[0]
        moved = [
            f"{run.name} {run.own_context_length:,} of its own, {run.context_length:,} here"
            for run in study.runs
            if run.own_context_length
        ]
        lengths = f" Training lengths in these tokens: {'; '.join(moved)}." if moved else ""
        yield (
            f"{text} A length counts tokens of {first.base or first.name}: all models read the same characters: "
            f"{tokenizers.same_texts:,} episodes, digests equal.{lengths}",
            False,
        )
    yield (
        "Losses of plain text are per token of each model's own: those of different tokenizers do not compare.",
        True,
    )
