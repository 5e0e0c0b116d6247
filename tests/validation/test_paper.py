"""The replication in small: eight checkpoints that are recognised as the study's, and pages with every cell that is due."""

import pytest

from lcprobe.analysis.published.tables import cells, models
from lcprobe.config import parse
from lcprobe.studies.evaluation.targets import find_targets
from validation import paper


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    pytest.importorskip("transformers")
    return paper.write_checkpoints(tmp_path_factory.mktemp("checkpoints"))


def test_the_eight_are_read_on_our_mixers_as_the_studys_models(checkpoints):
    assert list(checkpoints) == ["Mamba2", "M2A", "TPP", "RG", "RG-IT", "SL", "SL-IT", "RWKV"]
    for name, folder in checkpoints.items():
        (target,) = find_targets([folder])
        facts = target.source.published
        assert facts is not None
        assert (facts.paper, facts.paper_template) == (name, models()[name].wrapper)
        assert target.source.engine == "native"
        assert (target.template is not None) == (name == "RG-IT")


def test_configs_are_scaled_and_otherwise_those_that_are_shipped(checkpoints, tmp_path):
    for name in paper.CONFIGS:
        config = parse(paper.scaled(name, checkpoints, tmp_path, {"longest": "1024"}))
        assert {length.number for grid in config.probe.grids for length in grid.lengths} <= {1024, 2048}
        assert config.probe.continuation == 8
        assert config.probe.templates[0] == "paper"
        assert {model.address for model in config.study.models} <= {str(path) for path in checkpoints.values()}


def test_what_is_not_walked_is_named():
    table_2_3 = [c for c in cells() if c.table in ("2", "3")]
    walked = [c for c in table_2_3 if c.length == 2048]
    text = paper._not_walked(table_2_3, walked)
    assert text == "Table 2 at 4,096 tokens; Table 3 at 4,096, 8,192 tokens; no cell of RWKV, SL, SL-IT"
    assert paper._not_walked(walked, walked) == ""
    row = {"config": "tables-2-3", "cells shown": 1, "cells due": 1, "not walked": text}
    assert paper.notes([row])[1] == f"tables-2-3, not walked: {text}"


@pytest.mark.slow
def test_table_4_end_to_end(tmp_path):
    (row,) = paper.measure({"folder": str(tmp_path), "only": "table-4", "n": "1"})
    assert row["cells shown"] == row["cells due"] == row["by substring"] == 27
    assert row["chapter"]
