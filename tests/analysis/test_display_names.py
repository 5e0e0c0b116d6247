"""Display names reach everything that a report says and nothing that is kept: numbers, order and ids stay."""

import copy
from dataclasses import asdict, replace

import pytest

from lcprobe.analysis.display_names import Inputs, allowed_names, check_names, named, names_of
from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.inputs import RunFacts
from lcprobe.analysis.report.summary import summary
from lcprobe.analysis.report.tables import all_tables
from lcprobe.analysis.report.write import write_report
from lcprobe.errors import ConfigError
from tests.analysis.fabricated import flat, plan, records, run, study, task, window

HOSTILE = "Mamba-2 & <b>50 %</b> {$x_1$}"


def variant(name: str, seed: int, method: str = "none", tag: str = "") -> RunFacts:
    own = f"{name}-s{seed}" + ("" if method == "none" else f"+{method}") + tag
    template = tag.removeprefix("@") or "none"
    return run(
        own,
        group=name + tag,
        architecture=name + tag,
        seed=seed,
        extension=method,
        base=f"{name}-s{seed}{tag}",
        template=template,
    )


RUNS = [
    variant(*given)
    for given in (("ssm", 0), ("ssm", 1), ("rope", 0), ("rope", 0, "yarn"), ("rope", 0, "none", "@chat"))
]
CELLS = plan(["t"], lengths=[64, 128, 256], n=12)
FACTS = study(
    RUNS, [task("t", 4)], CELLS, matching=[{"model": r.name, "parameters": r.params} for r in RUNS],
    notes=["rope-s0: read by chunks; rope-s0+yarn on ssm-s1: it has no rotary layer; trope-s0 is another"],
)  # fmt: skip
RECORDS = records({r.name: window(150) if "rope" in r.name else flat(0.8) for r in RUNS}, CELLS)


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        ({"ssm": "Mamba-2"}, ["Mamba-2, seed 0", "Mamba-2, seed 1", "rope-s0", "rope-s0+yarn", "rope-s0@chat"]),
        ({"ssm-s1": "M"}, ["ssm-s0", "M", "rope-s0", "rope-s0+yarn", "rope-s0@chat"]),
        ({"rope-s0": "RoPE", "yarn": "YaRN"}, ["ssm-s0", "ssm-s1", "RoPE", "RoPE+YaRN", "RoPE@chat"]),
        ({"rope": "RoPE", "rope-s0+yarn": "RoPE, extended"}, ["ssm-s0", "ssm-s1", "RoPE", "RoPE, extended", "RoPE@chat"]),
        ({"none": "nothing", "elsewhere": "X"}, [r.name for r in RUNS]),
    ],
)  # fmt: skip
def test_runs_groups_and_methods_can_be_named(names, wanted):
    assert list(names_of(FACTS, names).values()) == wanted
    shown = named(Inputs(FACTS, RECORDS), names)
    assert [r.name for r in shown.study.runs] == wanted
    assert sorted(set(shown.records["model"].to_pylist())) == sorted(wanted)
    bases = {r.name: r.base for r in shown.study.runs}
    assert all(base in bases for base in bases.values()), "the model as trained is found under its name"


def test_numbers_are_the_same_under_any_names_and_nothing_that_is_given_changes():
    before, table = copy.deepcopy(asdict(FACTS)), RECORDS.slice(0)
    names = {"ssm": "Zamba", "rope-s0": HOSTILE, "yarn": "YaRN"}
    plain = analyse(FACTS, RECORDS)
    shown = analyse(*named(Inputs(FACTS, RECORDS), names))
    back = {name: raw for raw, name in names_of(FACTS, names).items()}
    assert asdict(FACTS) == before
    assert RECORDS.equals(table)
    for name, rows in all_tables(shown).items():
        numbers = [{k: v for k, v in row.items() if not isinstance(v, str)} for row in rows]
        assert numbers == [
            {k: v for k, v in row.items() if not isinstance(v, str)} for row in all_tables(plain)[name]
        ]
    assert [back[c.where.model] for c in shown.cells] == [c.where.model for c in plain.cells]
    text = " ".join(s.text for s in summary(shown))
    assert "Zamba" in text
    assert "ssm" not in text
    assert "rope-s0" not in text.replace("trope-s0", "")
    assert len(shown.of("extension")) == len(plain.of("extension")) > 0


def test_names_in_notes_are_words():
    notes = named(Inputs(FACTS, RECORDS), {"rope-s0": "R", "ssm": "M"}).study.notes
    assert notes == ["R: read by chunks; R+yarn on M, seed 1: it has no rotary layer; trope-s0 is another"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"sms": "X"}, ["study.names.sms", "ssm-s0 | ssm | ", "yarn", "did you mean 'ssm"]),
        ({"ssm-s0": "A", "ssm-s1": "A"}, ["study.names", "A for ssm-s0 and ssm-s1", "a name of its own"]),
        ({"ssm-s0": "rope-s0"}, ["rope-s0 for ssm-s0 and rope-s0"]),
        ({"ssm": "A", "rope": "A"}, ["A for ssm and rope"]),
    ],
)  # fmt: skip
def test_unknown_names_and_two_models_with_one_name_are_refused_in_one_line(names, words):
    with pytest.raises(ConfigError) as caught:
        check_names(FACTS, names, names)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
    assert "none" not in allowed_names(FACTS)
    if "sms" in names:
        check_names(FACTS, names, [])  # a study's own config may name models that are not probed here


def test_a_page_under_hostile_names_is_escaped_and_its_tables_have_them(tmp_path):
    facts = replace(FACTS, runs=FACTS.runs[:3])
    table = RECORDS.slice(0, len(RECORDS) * 3 // 5)
    report = write_report(facts, table, tmp_path, names={"rope-s0": HOSTILE})
    html = report.html.read_text(encoding="utf-8")
    assert "<b>50" not in html
    assert "Mamba-2 &amp; &lt;b&gt;50 %" in html
    assert HOSTILE in (tmp_path / "tables" / "models.csv").read_text(encoding="utf-8")
