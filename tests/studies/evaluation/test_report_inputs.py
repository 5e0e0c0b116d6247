"""report.json gives back the facts that it was written from, and reads files that older versions wrote."""

from lcprobe.files import read_json, write_json
from lcprobe.studies.evaluation.report_inputs import REPORT_INPUTS, ReportInputs, load_inputs, save_inputs
from lcprobe.training_data import TrainingData
from tests.analysis.fabricated import plan, run, study, task

QUANTILES = tuple(float(5 * i) for i in range(21))
DATA = TrainingData(QUANTILES, QUANTILES, QUANTILES, 0.25, "log")
RUNS = [run("a", training_data=DATA, length_schedule="64 until 0.5, then 128"), run("b")]
INPUTS = ReportInputs(study(RUNS, [task("niah")], plan(["niah"], lengths=[64])), ["1"], [])


def test_facts_survive_the_file(tmp_path):
    save_inputs(tmp_path, INPUTS)
    assert load_inputs(tmp_path) == INPUTS


def test_a_file_without_the_fields_of_training_data_is_read(tmp_path):
    save_inputs(tmp_path, INPUTS)
    written = read_json(tmp_path / REPORT_INPUTS)
    for facts in written["study"]["runs"]:
        del facts["training_data"], facts["length_schedule"]
    write_json(tmp_path / REPORT_INPUTS, written)
    assert [r.training_data for r in load_inputs(tmp_path).study.runs] == [None, None]
