"""The scripts of the report's page and the policy that lets these two run and nothing else: each by its digest."""

import base64
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from lcprobe.analysis.report.charts.render import script_bundle


@dataclass(frozen=True)
class Scripts:
    """bundle: Vega, Vega-Lite and vega-embed. own: what this page does with them. Both are trusted markup."""

    bundle: str
    own: str

    @property
    def policy(self) -> str:
        """The page's content security policy: no network, no evaluated code, only these scripts."""
        allowed = " ".join(f"'sha256-{_digest(text)}'" for text in (self.bundle, self.own))
        return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"


@cache
def scripts() -> Scripts:
    """The scripts, as they stand in the page."""
    own = files("lcprobe.analysis.report").joinpath("report.js").read_text(encoding="utf-8")
    return Scripts(_inline(script_bundle()), _inline(own))


def _inline(script: str) -> str:
    """A script as the text of an element: HTML has one kind of line end, and an end tag would end it early."""
    return (
        script.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script").replace("<!--", "<\\!--")
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
