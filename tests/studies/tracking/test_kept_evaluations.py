"""What evaluations have said of a run so far: all questions, the latest of each, and of each name."""

from lcprobe.studies.tracking.kept_evaluations import Evaluation, keep, merged, read_kept

FIRST = Evaluation(
    "one",
    {"eval/a@64": 0.5, "eval/a@128": 0.25},
    [{"eval/length": 64, "eval/a/accuracy": 0.5}, {"eval/length": 128, "eval/a/accuracy": 0.25}],
)
SECOND = Evaluation(
    "two",
    {"eval/a@128": 0.75, "eval/b@128": 1.0, "eval/b@32": 0.0},
    [{"eval/length": 32, "eval/b/accuracy": 0.0}, {"eval/length": 128, "eval/b/accuracy": 1.0}],
)


def test_questions_add_up_and_the_latest_value_of_a_name_wins(tmp_path):
    file = tmp_path / "kept.json"
    assert read_kept(file) == []
    assert keep(file, FIRST) == []
    assert keep(file, SECOND) == ["eval/a@128"]
    both = merged(read_kept(file))
    assert both.summary == {"eval/a@64": 0.5, "eval/a@128": 0.75, "eval/b@128": 1.0, "eval/b@32": 0.0}
    assert both.curves == [
        {"eval/length": 32, "eval/b/accuracy": 0.0},
        {"eval/length": 64, "eval/a/accuracy": 0.5},
        {"eval/length": 128, "eval/a/accuracy": 0.25, "eval/b/accuracy": 1.0},
    ]
    assert keep(file, FIRST) == ["eval/a@128"], "asked again, it is the latest"
    assert merged(read_kept(file)).summary["eval/a@128"] == 0.25


def test_the_same_question_again_replaces_what_it_said(tmp_path):
    file = tmp_path / "kept.json"
    for found in (FIRST, SECOND):
        keep(file, found)
    assert keep(file, Evaluation("one", {"eval/a@64": 0.0}, [])) == []
    again = merged(read_kept(file))
    assert again.summary == SECOND.summary | {"eval/a@64": 0.0}
    assert again.curves == SECOND.curves
    file.write_text("{")
    assert read_kept(file) == []
