"""Hostile names in a real browser: none of them acts."""

from datetime import timedelta
from urllib.parse import urlencode

import pytest

from tests.collector.pages.conftest import Open
from tests.collector.pages.hostile import HOSTILE
from tests.collector.pages.shelf import Shelf

pytestmark = pytest.mark.slow  # a browser takes its seconds

FIELDS = (
    "run", "kind", "pod", "container", "node", "service", "tool", "reason", "trigger", "runUID", "podUID", "sha256",
)  # fmt: skip
PLANTED = (
    "script:not([src^='/ui/assets/'])",
    *(
        f"main {name}"
        for name in ("img", "style", "link", "meta", "iframe", "base", "object", "video", "math", "template")
    ),
)
ADDRESSES = """() => [...document.querySelectorAll('[href], [src], [action]')].map(
  (one) => one.getAttribute('href') || one.getAttribute('src') || one.getAttribute('action'))"""


def test_no_name_acts(visit: Open, url: str, shelf: Shelf) -> None:
    """50 hostile texts in every field: no dialog, no violation of the policy, no request to anybody else."""
    assert len(HOSTILE) == 50
    lines = (text.replace("\n", " ").replace("\r", " ") for text in HOSTILE)
    body = "".join(f"main;{line} 3\n" for line in lines).encode("utf-8", "replace")
    for number, text in enumerate(HOSTILE):
        held = shelf.put("x.folded", ago=timedelta(minutes=number), content=body, hold=text)
        held.facts.update(dict.fromkeys(FIELDS, text), labels={text: text}, leaf=text + ".folded")
    page = visit("/?namespace=shop")
    paths = ["/?namespace=shop&limit=500", "/"]
    for number, held in enumerate(shelf.held):
        base = f"/ui/artifacts/shop/{held.name}"
        paths += [base] if number % 10 else [base, base + "/delete", base + "/top"]
    for path in paths:
        page.goto(url + path, wait_until="domcontentloaded")
        assert page.evaluate("() => window.violations") == [], path
        assert page.locator(", ".join(PLANTED)).count() == 0, path
        assert page.locator("head > link, head > script").count() == 3, path
        away = [one for one in page.evaluate(ADDRESSES) if not one.startswith(("/", "#", "?")) or one.startswith("//")]
        assert away == [], path


def test_no_search_acts(visit: Open, url: str, shelf: Shelf) -> None:
    """The same 50 in every part of an address that is shown again."""
    held = shelf.put()
    page = visit("/")
    fields = ("namespace", "q", "run", "pod", "kind", "tool", "leaf", "last", "limit", "sample", "by")
    for number, text in enumerate(HOSTILE):
        asked = urlencode(dict.fromkeys(fields, text), errors="replace")
        page.goto(
            url + ("/?" if number % 2 else f"/ui/artifacts/shop/{held.name}/top?") + asked,
            wait_until="domcontentloaded",
        )
        assert page.evaluate("() => window.violations") == []
        assert page.locator(", ".join(PLANTED)).count() == 0
