"""From records to statements: statistics, findings, and the report with its figures and tables.

`inputs` has the facts that the analysis needs besides the records; `findings.results.analyse` computes every finding
once; `report.write.write_report` writes them; `leakage` tests the scores of no-retrieval policies. Imports no torch
and no Lightning.
"""
