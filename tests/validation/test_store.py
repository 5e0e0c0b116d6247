"""`python -m validation store` on a small scale: killed writers lose nothing and write nothing twice."""

import pytest

from validation.store import measure


@pytest.mark.slow
def test_killed_writers_lose_nothing_and_write_nothing_twice():
    row = {one["measured"]: one["value"] for one in measure({"rows": "12000", "kills": "5", "writers": "3"})}
    assert (row["records"], row["lost"], row["twice"]) == (12_000, 0, 0)
    assert row["kills"] >= 4
    assert row["as one writer's"]
    assert row["as one writer's, compacted"]
