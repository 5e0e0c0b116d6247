"""`python -m validation NAME ... [key=value ...]`: validate a part of the instrument; writes a table and
validation/results/*.json.
"""

import sys
from pathlib import Path

from benchmarks.command import Measurement, run_measurements
from lcprobe.errors import run_command
from validation import (
    checkpoints,
    compiled,
    copiers,
    coverage,
    engines,
    exactness,
    fuzz,
    invariances,
    ladder,
    mutants,
    null_reports,
    oracles,
    paper,
    parity,
    planted,
    training_length,
)
from validation.attacks import table
from validation.checkpoints import memory
from validation.explain import table as explain_table

VALIDATIONS = {
    "oracles": Measurement(oracles.TITLE, oracles.OPTIONS, oracles.measure),
    "invariances": Measurement(
        invariances.TITLE, invariances.OPTIONS, invariances.measure, invariances.notes, invariances.GROUP
    ),
    "engines": Measurement(engines.TITLE, engines.OPTIONS, engines.measure, engines.notes, engines.GROUP),
    "ladder": Measurement(ladder.TITLE, ladder.OPTIONS, ladder.measure, ladder.notes, ("budget",)),
    "checkpoints": Measurement(
        checkpoints.TITLE, checkpoints.OPTIONS, checkpoints.measure, checkpoints.notes, checkpoints.GROUP
    ),
    "load_memory": Measurement(memory.TITLE, memory.OPTIONS, memory.measure, memory.notes),
    "exactness": Measurement(exactness.TITLE, exactness.OPTIONS, exactness.measure),
    "explain": Measurement(
        explain_table.TITLE, explain_table.OPTIONS, explain_table.measure, explain_table.notes, explain_table.GROUP
    ),
    "fuzz": Measurement(fuzz.TITLE, fuzz.OPTIONS, fuzz.measure),
    "attacks": Measurement(table.TITLE, table.OPTIONS, table.measure, table.notes),
    "grids": Measurement(table.GRIDS_TITLE, table.GRIDS_OPTIONS, table.measure_grids, table.notes),
    "copiers": Measurement(copiers.TITLE, copiers.OPTIONS, copiers.measure, copiers.notes, copiers.GROUP),
    "parity": Measurement(parity.TITLE, parity.OPTIONS, parity.measure),
    "planted": Measurement(planted.TITLE, planted.OPTIONS, planted.measure, planted.notes),
    "training_length": Measurement(
        training_length.TITLE,
        training_length.OPTIONS,
        training_length.measure,
        training_length.notes,
        training_length.GROUP,
    ),
    "null_reports": Measurement(null_reports.TITLE, null_reports.OPTIONS, null_reports.measure, null_reports.notes),
    "compiled": Measurement(compiled.TITLE, compiled.OPTIONS, compiled.measure, compiled.notes, compiled.GROUP),
    "mutants": Measurement(mutants.TITLE, mutants.OPTIONS, mutants.measure, mutants.notes, mutants.GROUP),
    "paper": Measurement(paper.TITLE, paper.OPTIONS, paper.measure, paper.notes, paper.GROUP),
    "coverage": Measurement(coverage.TITLE, coverage.OPTIONS, coverage.measure, coverage.notes),
}
DEFAULT_VALIDATIONS = ("oracles",)
"""Run if no name is given; the others take minutes to hours."""

if __name__ == "__main__":
    raise SystemExit(
        run_command(lambda: run_measurements(VALIDATIONS, DEFAULT_VALIDATIONS, Path(__file__).parent, sys.argv[1:]))
    )
