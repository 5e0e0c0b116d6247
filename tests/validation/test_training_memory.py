"""The tables of how far estimates of memory are from what is measured are those of the results."""

import json

from validation.training_memory.page import PAGE, RESULTS, with_tables


def test_the_page_has_the_results_and_all_are_within_a_tenth():
    page, results = PAGE.read_text(encoding="utf-8"), json.loads(RESULTS.read_text(encoding="utf-8"))
    assert with_tables(page, results) == page
    assert with_tables(page, {**results, "rows": results["rows"][1:]}) != page
    assert all(abs(row["off %"]) <= 10 for row in results["rows"])
