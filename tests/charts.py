"""How many charts the reports of tests have: drawing them is most of a report's time."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from lcprobe.analysis.report import write
from lcprobe.analysis.report.figures import CHARTS, draw


@contextmanager
def charts(names: tuple[str, ...]) -> Iterator[None]:
    """Reports that are written inside have these charts alone, drawn as always."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "draw", partial(draw, charts=names))
        yield


ALL = tuple(CHARTS)
