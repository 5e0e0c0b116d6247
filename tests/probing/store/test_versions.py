"""Records of earlier versions are read as today's; those of a newer one are refused, and left where they are."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcprobe.errors import DataError
from lcprobe.files import digest_json
from lcprobe.probing.store import Store, compact
from lcprobe.probing.store.versions import COLUMNS_IN_IDS, CONTEXT, RECORDS, VERSION
from lcprobe.records import CONTEXT_SCHEMA, NAMES, SCHEMA, table_of
from tests.probing.store.rows import facts, fill, records_of

ADDED = (("engine",), ("continuation", "substring"), ("template",))
"""Columns that versions 2, 3 and 4 brought."""


def write_earlier(path, version, own):
    """As lcprobe wrote units then: no number of the version, no seal, page checksums."""
    lacking = {name for names in ADDED[version - 1 :] for name in names}
    table = table_of(records_of(own)).select([name for name in NAMES if name not in lacking])
    table = table.replace_schema_metadata({"lcprobe": json.dumps(own, sort_keys=True)})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path, compression="zstd", write_page_checksum=True)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
def test_a_unit_of_every_earlier_version_is_todays(tmp_path, version):
    """What those versions measured has these values in the columns that they lacked: the records are the same ones."""
    own = facts("a", "vt", 64)
    write_earlier(tmp_path / "u.parquet", version, own)
    raw = (tmp_path / "u.parquet").read_bytes()
    table = Store(tmp_path).read(["u"])
    assert table.schema == SCHEMA
    assert table.equals(table_of(records_of(own)))
    assert Store(tmp_path).read(["u"], ["template", "exact"]).equals(table.select(["template", "exact"]))
    assert Store(tmp_path).summaries()["u"].rows == 4
    assert (tmp_path / "u.parquet").read_bytes() == raw, "migration is in memory"


def test_versions_side_by_side_are_one_table_and_one_pack(tmp_path):
    store, rows = Store(tmp_path), []
    for version in (1, 2, 3, 4):
        own = facts("a", "vt", 64, part=version)
        write_earlier(store.path(f"u{version}"), version, own)
        rows += records_of(own)
    own = facts("a", "vt", 64, part=9)
    fill(store, {"u9": own})
    names = ["u1", "u2", "u3", "u4", "u9"]
    whole = table_of([*rows, *records_of(own)])
    assert store.read(names).equals(whole)
    compact(store)
    assert not store.loose()
    assert Store(tmp_path).read(names).equals(whole)


def test_a_newer_version_is_refused_in_one_line_and_stays(tmp_path):
    store = Store(tmp_path)
    meta = {b"lcprobe": b"{}", VERSION: str(RECORDS.version + 1).encode()}
    newer = pa.schema([*SCHEMA, pa.field("later", pa.int32())], meta)
    with pytest.raises(DataError) as refused:
        RECORDS.version_of(newer, "records/u.parquet")
    assert str(refused.value) == (
        "records/u.parquet: records of version 5, this lcprobe reads 1 to 4; allowed: the newer lcprobe that wrote them"
    )
    fill(store, {"u": facts("a", "vt", 64)})
    fields = store.path("u").read_bytes()
    newer_kind = replace(RECORDS, steps=(*RECORDS.steps, RECORDS.steps[0]))
    Store(tmp_path, newer_kind).finish("v", records_of(facts("a", "vt", 64)), {})
    with pytest.raises(DataError, match="of version 5"):
        store.read(["u", "v"])
    assert store.has("v"), "it is no damage"
    assert store.path("u").read_bytes() == fields


def test_columns_of_no_version_are_refused_and_stay(tmp_path):
    table = table_of(records_of(facts("a", "vt", 64))).drop_columns(["strata", "drawn_depth"])
    pq.write_table(table, tmp_path / "u.parquet")
    with pytest.raises(
        DataError, match=r"before version 1 \(without strata, drawn_depth\); allowed: versions 1 to 4"
    ):
        Store(tmp_path).read(["u"])
    assert Store(tmp_path).has("u")


def test_a_finished_unit_stays_finished_when_a_column_is_added():
    assert digest_json(RECORDS.names(4)) == COLUMNS_IN_IDS
    assert RECORDS.names(RECORDS.version) == NAMES
    assert set(NAMES) - set(RECORDS.names(1)) == {name for names in ADDED for name in names}
    assert CONTEXT.names(1) == CONTEXT_SCHEMA.names
