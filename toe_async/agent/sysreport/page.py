"""The page: one file that asks nothing of any server, opens offline, and runs nothing but its own script.

Commands of processes are what a container's author made them: they are data inside of JSON, in which `<` is escaped,
and the script makes text nodes of them. The Content-Security-Policy names script and style by their digests.
"""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from toe_async.agent.sysreport.findings import findings
from toe_async.agent.sysreport.series import Series

ASSETS = Path(__file__).with_name("assets")


def make(series: Series) -> str:
    """The page of what was recorded."""
    report = series.report()
    return render({**report, "findings": findings(report, series.first, series.last)})


def render(report: dict[str, Any]) -> str:
    """The page of a report."""
    script, style = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    csp = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; style-src-attr 'none'; "
        "base-uri 'none'; form-action 'none'"
    )
    data = json.dumps(report, separators=(",", ":"), ensure_ascii=True).replace("<", "\\u003c")
    page = (ASSETS / "page.html").read_text(encoding="utf-8")
    # The report last: it may hold anything, a placeholder's name too.
    for name, text in (("csp", csp), ("style", style), ("script", script), ("report", data)):
        head, placeholder, tail = page.partition(f"{{{name}}}")
        assert placeholder
        page = head + text + tail
    return page


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
