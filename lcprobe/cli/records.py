"""`lcprobe records`: its help, and its words as a query."""

import os
from pathlib import Path

from lcprobe.cli.arguments import take_option
from lcprobe.errors import ConfigError, Said

RECORDS = """\
lcprobe records: count the records of studies, ask SQL of them, write them to a file, or put small files together.

usage: lcprobe records STUDY ... [--model NAME] [--task NAME] [--length TOKENS] [--all] [--sql QUERY]
                       [--csv FILE | --parquet FILE | --jsonl FILE]
       lcprobe records compact STUDY ...

  STUDY         runs/<study>, or runs/<study>/reports/<report>: the records that its report is about, and all finished
                ones where there is no report yet; those of several studies have the column study
  --model       records of this model; --task and --length likewise; each may be given several times
  --all         also what the report is not about: other grids, records of earlier code of a task
  --sql         a query of DuckDB over the table records (pip install 'lcprobe[query]')
  --csv         write the records, or the query's answer, to a file; --parquet and --jsonl likewise
  compact       put the files of each model and task together, while nobody probes the study; units stay finished

examples
  lcprobe records runs/quickstart
  lcprobe records runs/quickstart --model s0-mamba2 --task multikey --csv multikey.csv
  lcprobe records runs/a runs/b --sql "select study, model, avg(exact::int) from records group by all order by all"
  lcprobe records compact runs/quickstart

Counts and accuracy are those of exact match; control conditions, scorings and versions of a task's code are counted
apart. In CSV, a text that a spreadsheet would take for a formula begins with an apostrophe. docs/reference/records.md
lists the columns.
"""
OPTIONS = ("--model", "--task", "--length", "--sql", "--csv", "--parquet", "--jsonl")
USAGE = "STUDY ... with options (lcprobe records --help), or compact STUDY ..."


def records_command(words: list[str]) -> int:
    """`lcprobe records`. Raises ConfigError for words that are no folders and no options."""
    if words[:1] == ["compact"] and len(words) > 1:
        from lcprobe.studies.evaluation.records.command import compact_records

        compact_records(_folders(words[1:]))
        return 0
    values, rest = dict[str, list[str]](), list(words)
    for option in OPTIONS:
        values[option], rest = take_option(rest, option)
        if words.count(option) > len(values[option]) or any(not value for value in values[option]):
            raise ConfigError(option, Said("nothing given"), f"{option} VALUE")
    folders = _folders([word for word in rest if word != "--all"])
    outs = [(option.removeprefix("--"), Path(path)) for option in OPTIONS[4:] for path in values[option]]
    if len(outs) > 1 or len(values["--sql"]) > 1:
        given = " ".join([*(f"--{kind}" for kind, _ in outs), *(["--sql"] * len(values["--sql"]))])
        raise ConfigError("command line", given, "one file and one query")
    for text in values["--length"]:
        if not text.isdigit() or not 0 < int(text) < 2**31:
            raise ConfigError("--length", text, "a number of tokens >= 1")
    from lcprobe.studies.evaluation.records.command import show_records
    from lcprobe.studies.evaluation.records.query import RecordQuery

    lengths = tuple(map(int, values["--length"]))
    query = RecordQuery(tuple(values["--model"]), tuple(values["--task"]), lengths, "--all" in rest)
    show_records(folders, query, next(iter(values["--sql"]), None), next(iter(outs), None))
    return 0


def _folders(words: list[str]) -> list[Path]:
    if not words or not all(os.path.isdir(word) for word in words):
        wrong = next((word for word in words if not os.path.isdir(word)), "nothing")
        raise ConfigError("command line", wrong, USAGE)
    return [Path(word) for word in words]
