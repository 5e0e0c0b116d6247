"""A headless Chromium for the tests of pages."""

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",  # a GPU emulated in software can stop making frames on a busy machine
    "--disable-dev-shm-usage",  # other tests use it, and containers have little
    "--disable-background-networking",
    "--disable-component-update",
]
PATIENCE = 120_000
"""Milliseconds for whatever a page is asked: the suite's other workers may hold every core."""


@pytest.fixture(scope="module")
def new_page() -> Iterator[Callable[..., Any]]:
    """Opens a page, with Playwright's settings of a browser context, for example its viewport."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=PATIENCE)

        def opened(**settings: Any) -> Any:
            page = chromium.new_page(**settings)
            page.set_default_timeout(PATIENCE)
            return page

        yield opened
        chromium.close()
