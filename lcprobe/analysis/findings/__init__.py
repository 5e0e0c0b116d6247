"""Findings: statistics of the records, from panels and cells to contrasts, extrapolation, reach, half-life and gates.

A finding is a function of `cells.Measured` that returns one frozen dataclass per model, task and format, with its
numbers, or in `refused` the reason why there are none. What claims a difference or a limit is a `families.Claim` with
a p-value, and is corrected with all others. To add a finding: write it as a module here, on functions of
`lcprobe.analysis.stats`; add a field for it to `results.Results` and the call to `results.analyse`, where claims join
the list that is corrected; register its rows with one line in `report.tables.TABLES`, which writes them as a CSV file
and sends them to the tracker. Sentences (`report.summary`) and tables of the page are optional.
"""
