"""External prompts from the command line: the six RULER tasks that lm-eval builds without a network, and frozen
files."""

import copy
import json
import shutil
from importlib.metadata import version

import pytest

from lcprobe.analysis.stats.intervals import wilson
from lcprobe.cli.commands import evaluate_main, main, train_main
from lcprobe.probing.frozen import recall_and_precision, substring_score
from tests.tiny import write_config

OFFLINE = ["niah_single_1", "niah_multikey_2", "niah_multikey_3", "ruler_vt", "ruler_cwe", "ruler_fwe"]


@pytest.fixture(scope="module")
def one_index():
    """Every command has lm-eval read thousands of YAML files for its index of tasks: here those of RULER, once."""
    from lm_eval.tasks._index import TaskIndex

    build, known = TaskIndex.build, {}

    def cached(paths):
        key = tuple(map(str, paths))
        if key not in known:
            known[key] = build([path / "ruler" for path in paths])
        return copy.deepcopy(known[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TaskIndex, "build", staticmethod(cached))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_settings):
    folder = tmp_path_factory.mktemp("external")
    config = write_config(
        folder, data_settings, train={"tokens": 64 * 4 * 2, "context_length": 64, "batch_tokens": 256}
    )
    one_run = [
        "grid={arch: _drop_, seed: [0]}",
        "model.layout=mamba2",
        "probe.while_training=null",
        "match.budget=null",
    ]
    assert train_main([str(config), *one_run]) == 0
    (run_folder,) = [p.parent for p in (folder / "runs" / "tiny").glob("*/config.yaml")]
    return run_folder


@pytest.mark.slow  # what it runs is in tests/probing/external, too
@pytest.mark.parametrize("names", [OFFLINE[:1], OFFLINE], ids=["one", "all"])
def test_tasks_of_lm_eval_on_a_tiny_model(run, one_index, names, capsys):
    shutil.rmtree(run / "harness", ignore_errors=True)
    settings = ["probe.harness.limit=2", "probe.harness.max_seq_lengths=[1024]"]
    assert evaluate_main([str(run), *settings, "--harness", *names]) == 0
    shown = capsys.readouterr().out
    for task in names:
        label = f"lm-eval {version('lm_eval')} {task}"
        (path,) = (run / "harness").glob(f"{run.name}.{task}-*.json")
        document = json.loads(path.read_text())
        assert label in shown
        assert document["label"] == label
        (score,) = document["scores"]
        assert (score["task"], score["metric"], score["n"]) == (label, "1024", 2)
        samples = document["samples"][task]
        by_hand = [substring_score(s["filtered_resps"][0], s["target"], "all") for s in samples]
        assert score["value"] == pytest.approx(sum(by_hand) / 2)
        assert (score["low"], score["high"]) == pytest.approx([float(b) for b in wilson(sum(by_hand), 2)])
        assert all(len(s["filtered_resps"][0]) > 20 for s in samples), "a prompt of 1024 tokens was continued"
        assert document["settings"] == {"limit": 2, "max_seq_lengths": [1024], "online": False}
    assert "RULER" not in shown
    capsys.readouterr()
    code = evaluate_main([str(run), *settings, "--harness", "niah_singel_1", "niah_single_2"])
    error = capsys.readouterr().err
    assert (code, "did you mean 'niah_single_1'" in error) == (2, True)
    assert error.count("\n") == 1
    assert evaluate_main([str(run), *settings, "--harness", "niah_single_2"]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(
        "error: --harness: given 'niah_single_2'; allowed: a task whose data can be generated here"
    )
    assert (shown.err.count("\n"), shown.out) == (1, ""), "nothing of what lm-eval and nltk print before it fails"
    first = {path: path.read_bytes() for path in (run / "harness").iterdir()}
    assert len(first) == len(names)
    assert evaluate_main([str(run), *settings, "probe.harness.limit=1", "--harness", "niah_single_1"]) == 0
    (other,) = {*(run / "harness").iterdir()} - {*first}
    assert len(json.loads(other.read_text())["samples"]["niah_single_1"]) == 1
    assert {path: path.read_bytes() for path in first} == first, "other settings replace nothing"


def test_frozen_files_side_by_side(run, tmp_path, capsys):
    vt, qa = tmp_path / "vt" / "validation.jsonl", tmp_path / "qa1_0k.jsonl"
    vt.parent.mkdir()
    rows = [
        {"input": f"VAR AB = {i}\n" * (1 + i) + "Find them.", "outputs": ["AB", "CD"], "answer_prefix": " They are: "}
        for i in range(5)
    ]
    vt.write_text("\n".join(map(json.dumps, rows)))
    qa.write_text(json.dumps({"input": "Mary is in the office.", "question": "Where is Mary?", "target": "o"}))
    assert evaluate_main([str(run), "--frozen", str(vt), str(qa)]) == 0
    shown = capsys.readouterr().out
    for file, rule, n, tokens in ((vt, "all", 5, 30), (qa, "part", 1, 32)):
        (path,) = (run / "frozen").glob(f"{run.name}.{file.stem}-*.json")
        document = json.loads(path.read_text())
        assert (document["settings"], len(document["prompts"])) == (
            {"rule": rule, "tokens": tokens, "limit": None},
            n,
        )
        outputs = ["AB", "CD"] if file == vt else ["o"]
        for one in document["prompts"]:
            assert one["ruler"] == substring_score(one["said"], outputs, rule)
            assert (one["recall"], one["precision"]) == recall_and_precision(one["said"], outputs, rule)
            assert one["log_likelihood"] < 0
            assert "exact" not in one
        mean = sum(one["ruler"] for one in document["prompts"]) / n
        assert document["summary"]["RULER"] == pytest.approx(mean)
        assert document["summary"]["RULER high"] == pytest.approx(float(wilson(mean * n, n)[1]))
        assert document["summary"]["file"] in shown
        assert document["summary"]["any exact"] == sum(one["any_exact"] for one in document["prompts"]) / n
        assert not {"exact", "exact low"} & {*document["summary"]}, "no name that reads like all of the references"
    assert "any exact" in shown
    assert "one is enough even where the rule requires all" in " ".join(shown.split())
    lengths = [
        one["prompt_tokens"] for one in json.loads(next((run / "frozen").glob("*validation*")).read_text())["prompts"]
    ]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1]
    first = {path: path.read_bytes() for path in (run / "frozen").iterdir()}
    for other in ("limit=2", "tokens=3", "rule=part"):
        assert evaluate_main([str(run), f"probe.frozen.{other}", "--frozen", str(vt)]) == 0
    assert len(list((run / "frozen").iterdir())) == len(first) + 3
    assert evaluate_main([str(run), "--frozen", str(vt), str(qa)]) == 0
    assert len(list((run / "frozen").iterdir())) == len(first) + 3, "the same again is the same file"
    assert {path: path.read_bytes() for path in first} == first


def test_a_bad_frozen_file_writes_nothing(run, tmp_path, capsys):
    (tmp_path / "niah.jsonl").write_text('{"input": "x"}\n')
    before = sorted(run.rglob("*"))
    assert evaluate_main([str(run), "--frozen", str(tmp_path / "niah.jsonl")]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'niah.jsonl'}:1: outputs" in error
    assert error.count("\n") == 1
    assert sorted(run.rglob("*")) == before


def test_explain_on_a_tiny_model(run, tmp_path, capsys):
    """A model that has learned nothing: .02 of 50 is noise, .5 is nothing that a change of the measurement gives."""
    given = ["task=single", "length=64", "n=50", "our_n=20", "causes=[scorer,bos]", f"out={tmp_path / 'why.json'}"]
    assert main(["explain", str(run), *given, "theirs=0.02"]) == 0
    assert "sampling noise accounts" in capsys.readouterr().out
    assert main(["explain", str(run), *given, "theirs=0.5"]) == 0
    shown, written = capsys.readouterr().out, json.loads((tmp_path / "why.json").read_text())
    assert written["verdict"] in " ".join(shown.split())
    assert written["kind"] == "none"
    assert "scorer: substring" in written["tried"]
    assert written["model"]
    assert main(["explain", str(run), *given, "theirs=0.5", "haystack=logz"]) == 2
    assert "did you mean 'logs'?" in capsys.readouterr().err
    assert main(["explain", str(run), *given, "theirs=0.5", "template=chatm"]) == 2
    assert "did you mean 'chatml'?" in capsys.readouterr().err
