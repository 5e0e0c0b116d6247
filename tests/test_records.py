"""The columns of the records store: one list, from which the schemas are built and the reference page is written."""

import pyarrow as pa
import pytest

from lcprobe.records import COLUMNS, CONTEXT_COLUMNS, CONTEXT_SCHEMA, SCHEMA, table_of


@pytest.mark.parametrize(("columns", "schema"), [(COLUMNS, SCHEMA), (CONTEXT_COLUMNS, CONTEXT_SCHEMA)])
def test_every_column_is_described_once_in_the_order_of_the_schema(columns, schema):
    assert [(c.name, c.type) for c in columns] == [(field.name, str(field.type)) for field in schema]
    assert len({c.name for c in columns}) == len(columns)
    for column in columns:
        assert column.meaning.endswith("."), column.name
        assert len({c.meaning for c in columns}) == len(columns)


def test_columns_of_both_stores_with_one_name_are_one_thing():
    context = {c.name: c for c in CONTEXT_COLUMNS}
    shared = [c for c in COLUMNS if c.name in context]
    assert [c.name for c in shared] == ["model", "checkpoint", "step", "tokens"]
    assert all(context[c.name] == c for c in shared)


def test_a_record_that_lacks_a_column_is_refused():
    record = dict.fromkeys(SCHEMA.names)
    assert table_of([record]).schema == SCHEMA
    with pytest.raises(KeyError, match="depth"):
        table_of([{name: value for name, value in record.items() if name != "depth"}])
    with pytest.raises(pa.ArrowInvalid):
        table_of([{**record, "length": "long"}])
