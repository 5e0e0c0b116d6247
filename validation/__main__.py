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
    costs,
    coverage,
    engines,
    exactness,
    fuzz,
    invariances,
    kills,
    ladder,
    launchers,
    mutants,
    null_reports,
    oracles,
    paper,
    parity,
    planted,
    soak,
    store,
    strategies,
    training_length,
    training_memory,
)
from validation.attacks import table
from validation.checkpoints import memory
from validation.context_parallel import split
from validation.context_parallel import table as context_parallel
from validation.explain import table as explain_table
from validation.faults import table as faults

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
    "memory": Measurement(
        training_memory.TITLE,
        training_memory.OPTIONS,
        training_memory.measure,
        training_memory.notes,
        training_memory.GROUP,
    ),
    "exactness": Measurement(exactness.TITLE, exactness.OPTIONS, exactness.measure),
    "explain": Measurement(
        explain_table.TITLE, explain_table.OPTIONS, explain_table.measure, explain_table.notes, explain_table.GROUP
    ),
    "context_parallel": Measurement(
        context_parallel.TITLE,
        context_parallel.OPTIONS,
        context_parallel.measure,
        context_parallel.notes,
        context_parallel.GROUP,
    ),
    "context_split": Measurement(split.TITLE, split.OPTIONS, split.measure, split.notes, split.GROUP),
    "faults": Measurement(faults.TITLE, faults.OPTIONS, faults.measure, faults.notes, faults.GROUP),
    "fuzz": Measurement(fuzz.TITLE, fuzz.OPTIONS, fuzz.measure),
    "attacks": Measurement(table.TITLE, table.OPTIONS, table.measure, table.notes),
    "grids": Measurement(table.GRIDS_TITLE, table.GRIDS_OPTIONS, table.measure_grids, table.notes),
    "copiers": Measurement(copiers.TITLE, copiers.OPTIONS, copiers.measure, copiers.notes, copiers.GROUP),
    "parity": Measurement(parity.TITLE, parity.OPTIONS, parity.measure),
    "planted": Measurement(planted.TITLE, planted.OPTIONS, planted.measure, planted.notes),
    "strategies": Measurement(
        strategies.TITLE, strategies.OPTIONS, strategies.measure, strategies.notes, strategies.GROUP
    ),
    "training_length": Measurement(
        training_length.TITLE,
        training_length.OPTIONS,
        training_length.measure,
        training_length.notes,
        training_length.GROUP,
    ),
    "null_reports": Measurement(null_reports.TITLE, null_reports.OPTIONS, null_reports.measure, null_reports.notes),
    "store": Measurement(store.TITLE, store.OPTIONS, store.measure, store.notes),
    "soak": Measurement(soak.TITLE, soak.OPTIONS, soak.measure, soak.notes),
    "compiled": Measurement(compiled.TITLE, compiled.OPTIONS, compiled.measure, compiled.notes, compiled.GROUP),
    "mutants": Measurement(mutants.TITLE, mutants.OPTIONS, mutants.measure, mutants.notes, mutants.GROUP),
    "launchers": Measurement(launchers.TITLE, launchers.OPTIONS, launchers.measure, launchers.notes, launchers.GROUP),
    "kills": Measurement(kills.TITLE, kills.OPTIONS, kills.measure, kills.notes, kills.GROUP),
    "paper": Measurement(paper.TITLE, paper.OPTIONS, paper.measure, paper.notes, paper.GROUP),
    "costs": Measurement(costs.TITLE, costs.OPTIONS, costs.measure, costs.notes),
    "coverage": Measurement(coverage.TITLE, coverage.OPTIONS, coverage.measure, coverage.notes),
}
DEFAULT_VALIDATIONS = ("oracles",)
"""Run if no name is given; the others take minutes to hours."""

if __name__ == "__main__":
    raise SystemExit(
        run_command(lambda: run_measurements(VALIDATIONS, DEFAULT_VALIDATIONS, Path(__file__).parent, sys.argv[1:]))
    )
