"""What evaluations have said of a run so far: all questions, the latest of each, and of each name."""

from dataclasses import replace

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
    assert keep(file, FIRST) == ([], [])
    assert keep(file, SECOND) == (["eval/a@128"], [])
    both = merged(read_kept(file))
    assert both.summary == {"eval/a@64": 0.5, "eval/a@128": 0.75, "eval/b@128": 1.0, "eval/b@32": 0.0}
    assert both.curves == [
        {"eval/length": 32, "eval/b/accuracy": 0.0},
        {"eval/length": 64, "eval/a/accuracy": 0.5},
        {"eval/length": 128, "eval/b/accuracy": 1.0},
    ], "0.25 at 128 is no value of the summary"
    assert keep(file, FIRST) == (["eval/a@128"], []), "asked again, it is the latest"
    assert merged(read_kept(file)).summary["eval/a@128"] == 0.25


def test_the_same_question_again_replaces_what_it_said(tmp_path):
    file = tmp_path / "kept.json"
    for found in (FIRST, SECOND):
        keep(file, found)
    assert keep(file, Evaluation("one", {"eval/a@64": 0.0}, [])) == ([], [])
    again = merged(read_kept(file))
    assert again.summary == SECOND.summary | {"eval/a@64": 0.0}
    assert again.curves == SECOND.curves
    file.write_text("{")
    assert read_kept(file) == []


def values(accuracy: float, n: int, *lengths: int, effective: int | None = None) -> dict[str, float | int]:
    found: dict[str, float | int] = {"eval/a/chance": 0.25}
    for length in lengths:
        found |= {f"eval/a@{length}": accuracy, f"eval/a@{length}/low": accuracy - 0.1, f"eval/a@{length}/n": n}
    if effective is not None:
        found |= {"eval/a/effective_length": effective, "eval/a/effective_length/at_least": 1}
    return found


def curves(accuracy: float, *lengths: int) -> list[dict[str, float | int]]:
    return [{"eval/length": length, "eval/a/accuracy": accuracy} for length in lengths]


def test_the_study_s_own_question_keeps_its_names_and_its_values_stay_together(tmp_path):
    """A second question with few answers, at other lengths too, and without an effective length."""
    file = tmp_path / "kept.json"
    own = Evaluation("own", values(0.5, 250, 128, 256, effective=256), curves(0.5, 128, 256), own=True)
    small = Evaluation("small", values(0.9, 10, 256, 512, effective=512), curves(0.9, 256, 512))
    for order in ((own, small), (small, own)):
        file.unlink(missing_ok=True)
        shared = [keep(file, one) for one in order]
        names = {"eval/a@256", "eval/a@256/low", "eval/a@256/n", "eval/a/effective_length"}
        assert set(shared[1].kept if order[0] is own else shared[1].replaced) == names
        both = merged(read_kept(file))
        assert both.summary == small.summary | own.summary
        assert both.curves == curves(0.5, 128, 256) + curves(0.9, 512)
    without = replace(own, summary=values(0.5, 250, 128, 256))
    keep(file, without)
    assert "eval/a/effective_length" not in merged(read_kept(file)).summary, (
        "that of the other question is not its own"
    )
    other = Evaluation("other", values(0.1, 20, 128), [], own=True)
    keep(file, other)
    assert merged(read_kept(file)).summary["eval/a@128"] == 0.1, "a study has one question of its own, the latest"


def test_of_two_other_questions_the_one_with_more_answers_has_a_name(tmp_path):
    file = tmp_path / "kept.json"
    large, small = (Evaluation(str(n), values(n / 1000, n, 256), []) for n in (250, 10))
    for order in ((large, small), (small, large)):
        file.unlink(missing_ok=True)
        for one in order:
            keep(file, one)
        assert merged(read_kept(file)).summary == large.summary
