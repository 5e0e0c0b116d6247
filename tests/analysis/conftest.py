"""Reports with all of their charts, and without their pictures for tests of everything else about them."""

import pytest

from lcprobe.analysis.report import write
from lcprobe.analysis.report.charts.render import Rendered

BLANK = "<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'></svg>"


@pytest.fixture(autouse=True, scope="module")
def few_charts():
    """Here all of them."""


@pytest.fixture
def no_pictures(monkeypatch):
    """Figures are named and laid out as always, and drawn as nothing: drawing is most of a report's time."""
    monkeypatch.setattr(write, "render", lambda chart: Rendered("{}", BLANK))
    monkeypatch.setattr(write, "FILES", (".svg", ".png"))
