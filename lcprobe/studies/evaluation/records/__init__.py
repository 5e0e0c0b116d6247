"""The records of studies, asked for and written: `lcprobe records`, and `records()` of a study in Python.

query.py      which records: of the report, or all; of some models, tasks and lengths
counts.py     how many there are and how many are right, as a table
export.py     into CSV, Parquet or JSON lines
command.py    what `lcprobe records` does
"""
