"""Tables of the page about the study itself: models and matching, tasks and their gates, versions."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from lcprobe.analysis.findings.gates import GATE_CONTROLS
from lcprobe.analysis.findings.load_records import numbers
from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.inputs import RunFacts, Value
from lcprobe.analysis.report.blocks import Table, decimal_text, panel_columns, value_text
from lcprobe.analysis.report.flags import PUBLISHED


def model_tables(results: Results) -> list[Table]:
    """Matching, runs, digests of data and checkpoints, and the learning-rate sweep."""
    study, tables = results.study, []
    if study.matching:
        tables.append(
            _free_table("Matching", f"Largest difference in {study.matched}: {study.mismatch:.2%}.", study.matching)
        )
    columns = ["model", "group", "seed", "training length", "tokens", "learning rate", "chosen by", "skipped steps"]
    rows = [
        [
            r.name,
            r.group,
            *map(value_text, _training_of(r)),
            r.tuned,
            "" if r.tuned == PUBLISHED else value_text(r.skipped_steps),
            "" if r.seconds is None or r.tuned == PUBLISHED else f"{r.seconds:.0f}",
        ]
        for r in study.runs
    ]
    columns = [*columns, "seconds"]
    if any(r.started_from for r in study.runs):
        columns += ["started from", "trained extension", "tokens before"]
        more = [[r.started_from, r.trained_extension, value_text(r.tokens_before or None)] for r in study.runs]
        rows = [[*row, *own] for row, own in zip(rows, more, strict=True)]
    tables.append(Table("Runs", "One row per model.", columns, rows))
    caption = f"The data digest covers every training batch in order; {_digests_text(study.runs)}."
    digests = [[r.name, r.data_digest, r.checkpoint] for r in study.runs]
    tables.append(Table("Digests", caption, ["model", "data digest", "checkpoint"], digests))
    if study.sweep:
        caption = "Score: answer loss of short trials, the mean over their seeds."
        tables.append(_free_table("Learning-rate sweep", caption, study.sweep))
    return tables


def _training_of(r: RunFacts) -> tuple[int | float | None, ...]:
    """Seed, training length, tokens and learning rate; None where it is not known of a published model."""
    length = r.own_context_length or r.context_length
    return (None, length, r.tokens or None, None) if r.tuned == PUBLISHED else (r.seed, length, r.tokens, r.lr)


def _digests_text(runs: Sequence[RunFacts]) -> str:
    """Whether the digests of the runs are equal; those of published models are not known."""
    known = [r.data_digest for r in runs if r.data_digest]
    without = len(runs) - len(known)
    unknown = f"{'none is' if not known else f'of {without} none is'} known: not trained here" if without else ""
    if len(known) < 2:
        return unknown or "there is one run"
    equal = (
        f"the digests{' that are known' if without else ''} are {'equal' if len(set(known)) == 1 else 'NOT equal'}"
    )
    return f"{equal}; {unknown}" if unknown else equal


def task_tables(results: Results) -> list[Table]:
    """Tasks with their chance level, and the gates with their controls."""
    rows = [
        [t.name, t.description, decimal_text(t.chance), "yes" if t.has_keys else "no"] for t in results.data.tasks
    ]
    caption = "Chance: choosing one of the values in the context without using the key; 1 where there is only one."
    tasks = Table("Tasks", caption, ["task", "settings", "chance", "asks by key"], rows)
    columns = ["model", "task", "format", "length", "exact match"]
    columns += [name.replace("_", " ") for name in GATE_CONTROLS]
    columns += ["stated chance", "task", "key look-up", "copies with any key"]
    copies = {True: "yes", False: "no", None: ""}
    rows = [
        [
            *panel_columns(g.where),
            value_text(g.length),
            str(g.accuracy),
            *(str(g.controls.get(name, "")) for name in GATE_CONTROLS),
            decimal_text(g.chance),
            g.acquired,
            g.lookup or "none needed",
            copies[g.copies],
        ]
        for g in results.gates
    ]
    caption = "At the reference length: proportion (k/n, 95 % interval). "
    caption += "The controls measure what is scored without retrieval."
    return [tasks, Table("Gates and controls", caption, columns, rows)]


def version_tables(results: Results) -> list[Table]:
    """Versions, and notes on what could not be built or was read once for several questions."""
    rows = [[name, str(value)] for name, value in results.study.versions.items()]
    tables = [Table("Versions", "Exact versions of the software behind these numbers.", ["what", "version"], rows)]
    notes = [[note] for note in (*results.study.notes, *_prefill_notes(results))]
    if notes:
        tables.append(Table("Notes", "Cells that could not be built, and other remarks.", ["note"], notes))
    return tables


def _free_table(title: str, caption: str, rows: Sequence[Mapping[str, Value]]) -> Table:
    """Rows with columns of their own."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return Table(title, caption, columns, [[value_text(row.get(name)) for name in columns] for row in rows])


def _prefill_notes(results: Results) -> Iterator[str]:
    """Share of the prompts that was prefilled: a prefix that several questions have in common is read once."""
    records = results.data.records
    read, prompts = numbers(records, "read_tokens"), numbers(records, "prompt_tokens")
    known = ~np.isnan(read)
    if known.any():
        total, part = prompts[known].sum(), read[known].sum()
        shared = f"{1 - part / total:.0%} are shared by several questions"
        yield f"Prompts of {total:,.0f} tokens were read as {part:,.0f}: {shared}"
