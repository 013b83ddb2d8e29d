"""The report's page in a real browser: what a reader sees, and that nothing a process is called can act on it."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import browser as chromium
import pytest
from hostilenames import HOSTILE_NAMES

from toe_async.agent.sysreport.page import make, render
from toe_async.agent.sysreport.series import Series

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

URL = "https://collector.test/sysreport.html"
pytestmark = pytest.mark.slow


def recorded(names: tuple[str, ...] = ("web",), seconds: int = 30) -> Series:
    """A container of half a core that is held back, with processes of these names."""
    header = {
        "version": 1, "interval": 1.0, "ticks": 100, "started": "2026-01-01T00:00:00Z", "kernel": "6.1", "cgroup": 2,
        "missing": ["disks"],
    }  # fmt: skip
    series = Series(header)
    for t in range(seconds + 1):
        series.add(
            {
                "t": float(t),
                "cpu": {"ticks": {"cpu": [60 * t, 0, 20 * t, 110 * t, 10 * t, 0, 0, 0]}, "switches": 1000 * t},
                "group": {
                    "usage_usec": 500_000 * t, "nr_periods": 10 * t, "nr_throttled": 5 * t, "cpu_limit": 0.5,
                    "memory": 50 << 20, "memory_limit": 64 << 20,
                },
                "processes": [
                    [pid, 1, name, 30 * t if pid == 1 else t, 5 << 20, 4, 9, 7 * t, t]
                    for pid, name in enumerate(names, 1)
                ],
            }
        )  # fmt: skip
    return series


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium.launch() as launched:
        yield launched


class Reader:
    """A page that notes everything that is wrong: errors, violations of its policy, dialogs, requests."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self.wrong: list[str] = []
        page.on("dialog", self.asked)
        page.on("pageerror", lambda error: self.wrong.append(str(error)))
        page.on("console", lambda message: self.wrong.append(message.text))
        page.on("popup", lambda popup: self.wrong.append(popup.url))
        page.on("request", lambda request: None if request.url == URL else self.wrong.append(request.url))

    def asked(self, dialog: "Dialog") -> None:
        self.wrong.append(dialog.message)
        dialog.dismiss()

    def open(self, text: str) -> "Reader":
        self.page.route(re.compile(r".*"), lambda route: route.abort())
        self.page.route(URL, lambda route: route.fulfill(body=text, content_type="text/html"))
        self.page.goto(URL)
        self.page.wait_for_selector("figure svg path", state="attached")
        return self

    def texts(self, where: str) -> list[str]:
        found: list[str] = self.page.locator(where).all_inner_texts()
        return found


@pytest.fixture
def reader(browser: "Browser") -> Iterator[Reader]:
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    reader = Reader(context.new_page())
    yield reader
    context.close()
    assert reader.wrong == []


def test_the_page_shows_what_stands_out_first_then_charts_by_section(reader: Reader) -> None:
    reader.open(make(recorded()))
    (sentence,) = reader.texts(".findings li")
    assert sentence.startswith("The container was held back in 50 % of its scheduling periods: its limit of 0.5 cores")
    assert reader.texts("h2") == ["Container", "Processes", "Processors"]
    assert "Processor time" in reader.texts("h3")
    assert "Not to be read from the tool's container: disks." in reader.texts("p.note")
    assert reader.texts("#about") == ["from 2026-01-01T00:00:00Z · for 0:30 · 31 samples · Linux 6.1 · cgroup v2"]


def test_numbers_are_there_without_a_pointer_and_in_units_people_use(reader: Reader) -> None:
    reader.open(make(recorded()))
    chart = reader.page.locator("figure", has=reader.page.get_by_role("heading", name="Memory", exact=True))
    assert chart.locator("tbody tr").first.inner_text().split("\t")[-1] == "50.0 MiB"
    assert "in use 50.0 MiB on average" in str(chart.locator("svg").first.get_attribute("aria-label"))
    row = reader.texts(".processes tbody tr")[0].split("\t")
    assert row == ["web", "1", "0.3 cores", "0.3 cores", "5 MiB", "4", "9", "7", "1"]


def test_pointing_at_one_chart_tells_that_moment_in_all_of_them(reader: Reader) -> None:
    reader.open(make(recorded()))
    picture = reader.page.locator("figure svg").first
    picture.hover()
    assert len(set(reader.texts(".at"))) == 1
    assert reader.texts(".at")[0].startswith("at 0:1")
    reader.page.mouse.move(1, 1)
    assert set(reader.texts(".at")) == {""}


def test_a_line_is_hidden_and_shown_from_the_keyboard(reader: Reader) -> None:
    reader.open(make(recorded()))
    figure = reader.page.locator("figure").first
    count = figure.locator(".trace").count()
    button = figure.get_by_role("button").first
    button.focus()
    reader.page.keyboard.press("Enter")
    assert figure.locator(".trace").count() == count - 1
    assert button.get_attribute("aria-pressed") == "false"
    reader.page.keyboard.press("Space")
    assert figure.locator(".trace").count() == count


def test_no_name_is_ever_more_than_text(reader: Reader) -> None:
    """Fifty of them as commands of processes; no request, no script, no dialog, no violation of the policy."""
    names = tuple(name.replace("\x00", "") for name in HOSTILE_NAMES)
    reader.open(make(recorded(names)))
    shown: list[str] = reader.page.eval_on_selector_all(
        ".processes tbody td:first-child", "(cells) => cells.map((cell) => cell.textContent)"
    )
    assert sorted(shown) == sorted(names)
    assert reader.page.locator("img, iframe, object, embed, form, base, link").count() == 0


def test_a_report_that_names_placeholders_is_not_filled_in_again(reader: Reader) -> None:
    reader.open(make(recorded(("{script}", "{csp}", "{report}"))))
    assert sorted(row.split("\t")[0] for row in reader.texts(".processes tbody tr")) == [
        "{csp}",
        "{report}",
        "{script}",
    ]


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_page_follows_the_readers_colours(browser: "Browser", scheme: Any, dark: bool) -> None:
    context = browser.new_context(color_scheme=scheme)
    reader = Reader(context.new_page()).open(make(recorded()))
    red, green, blue = re.findall(
        r"\d+", reader.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    )[:3]
    assert (int(red) + int(green) + int(blue) < 3 * 128) == dark
    assert reader.wrong == []
    context.close()


def test_a_narrow_window_scrolls_in_one_direction_only(browser: "Browser") -> None:
    context = browser.new_context(viewport={"width": 360, "height": 700})
    reader = Reader(context.new_page()).open(make(recorded()))
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert reader.wrong == []
    context.close()


def test_a_page_names_no_server_and_allows_none() -> None:
    text = make(recorded())
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in text
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]


def test_markup_in_the_data_is_escaped() -> None:
    report = {**recorded(("</script><script>",)).report(), "findings": []}
    assert render(report).count("</script>") == 2
