"""The page in a real browser, by what a reader sees, hears and clicks."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hostilenames import HOSTILE_NAMES

from toe_async.profiles.folded import render
from toe_async.profiles.model import Frame, Profile, Sample, ValueType
from toe_async.profiles.page import CSP, flame_page
from toe_async.profiles.parse import parse

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Route

URL = "https://collector.test/flame"
ROW = 20


def shop() -> Profile:
    """10 s of CPU: main 1 s, handle 1 s, json 2 s, json in json 1 s, query 4 s; and gc 1 s beside it."""

    def sample(path: str, seconds: int) -> Sample:
        stack = tuple(Frame(name, f"/src/{name}.go", 7) for name in reversed(path.split()))
        return Sample(stack, (seconds * 100, seconds * 10**9, 11 - seconds))

    return Profile(
        sample_types=(
            ValueType("samples", "count"),
            ValueType("cpu", "nanoseconds"),
            ValueType("alloc", "bytes"),
        ),
        samples=(
            sample("main", 1),
            sample("main handle", 1),
            sample("main handle json", 2),
            sample("main handle json json", 1),
            sample("main handle query", 4),
            sample("gc", 1),
        ),
    )


SHOP = flame_page(shop(), title="shop cpu", subtitle="pod shop/app-1, container app")
DIFF = flame_page(
    parse(b"main;kept 50\nmain;grew 40\nmain;new 10\n"),
    title="t",
    base=parse(b"main;kept 100\nmain;grew 20\nmain;gone 80\n"),
)


class Reader:
    """One reader with one page: what happened behind their back is in `wrong`."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self.wrong: list[str] = []
        self.requests: list[str] = []
        page.on("dialog", self.asked)
        page.on("pageerror", lambda error: self.wrong.append(f"error {error}"))
        page.on("console", self.said)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("popup", lambda popup: self.wrong.append(f"popup {popup.url}"))

    def asked(self, dialog: "Dialog") -> None:
        self.wrong.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def said(self, message: "ConsoleMessage") -> None:
        """Whatever the browser has to say is wrong, but for its advice about our own look at the pixels."""
        if "readback operations" not in message.text:
            self.wrong.append(f"console {message.text}")

    def open(self, body: bytes, fragment: str = "", policy: str | None = CSP) -> "Reader":
        """Load `body` as the collector serves it: under the header's policy, in a place without an origin."""

        def answer(route: "Route") -> None:
            headers = {"Content-Security-Policy": policy} if policy else {}
            route.fulfill(body=body, content_type="text/html", headers=headers)

        self.page.route(re.compile(r".*"), lambda route: route.abort())
        self.page.route(re.compile(re.escape(URL)), answer)
        self.page.goto(f"{URL}{fragment}")
        self.page.wait_for_function("() => performance.getEntriesByName('flame:painted').length > 0")
        return self

    def text(self, where: str) -> str:
        return "\n".join(filter(None, self.page.locator(where).inner_text().splitlines()))

    def crumbs(self) -> list[str]:
        return self.page.locator("#crumbs button").all_inner_texts()

    def click(self, x: float, row: int, chart: str = "#flame") -> None:
        """Click at `x` (0 to 1 of the width) in a row counted from the root of an icicle."""
        canvas = self.page.locator(f"{chart} canvas")
        width = canvas.evaluate("(canvas) => canvas.clientWidth")
        canvas.click(position={"x": x * width, "y": row * ROW + ROW / 2})

    def pixel(self, x: float, row: int) -> tuple[int, int, int]:
        """The colour near the right end of a frame that begins at `x`, where there is no text."""
        found: list[int] = self.page.evaluate(
            """async ([x, row]) => {
                 await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
                 const canvas = document.querySelector("#flame canvas"), scale = canvas.width / canvas.clientWidth;
                 return [...canvas.getContext("2d").getImageData(x * canvas.width, (row * 20 + 3) * scale, 1, 1).data];
               }""",
            [x, row],
        )
        return found[0], found[1], found[2]

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def table(self) -> list[list[str]]:
        rows = self.page.locator("#table tbody tr").all()
        return [[cell.strip() for cell in row.locator("td").all_inner_texts()] for row in rows]


def elements(svg: str) -> set[str]:
    """Names of the elements of a well-formed SVG."""
    return {element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter()}


@pytest.fixture
def reader(chromium: "Browser") -> Iterator[Reader]:
    context = chromium.new_context(viewport={"width": 1000, "height": 700}, accept_downloads=True)
    found = Reader(context.new_page())
    yield found
    context.close()
    assert found.wrong == []


def test_it_shows_where_the_time_went_and_where_the_capture_came_from(reader: Reader) -> None:
    """Title, facts, units, and a graph whose rows can be pointed at."""
    reader.open(SHOP)
    assert reader.text("h1") == "shop cpu"
    assert reader.text("#subtitle") == "pod shop/app-1, container app"
    assert reader.text("#facts") == "10.0 s cpu · 6 frames"
    reader.page.locator("#flame canvas").hover(position={"x": 100, "y": 2 * ROW + 5})
    assert reader.text("#tip").splitlines() == [
        "handle",
        "Self 1.00 s, 10.0 %.",
        "Total 8.00 s, 80.0 %.",
        "88.9 % of its caller.",
        "/src/handle.go",
    ]
    assert reader.requests == [URL]


def test_a_click_zooms_breadcrumbs_lead_out_and_back_undoes(reader: Reader) -> None:
    """The zoomed frame fills the width; its callers stay above it."""
    reader.open(SHOP)
    reader.click(0.1, 2)
    assert reader.crumbs() == ["all", "main", "handle"]
    reader.click(0.99, 3)  # json, at the right end only because the row is zoomed
    assert reader.crumbs() == ["all", "main", "handle"]  # handle's own share is there: nothing to click on
    reader.click(0.6, 3)
    assert reader.crumbs() == ["all", "main", "handle", "json"]
    reader.page.go_back()
    assert reader.crumbs() == ["all", "main", "handle"]
    reader.page.go_forward()
    assert reader.crumbs() == ["all", "main", "handle", "json"]
    reader.page.locator("#crumbs button", has_text="main").click()
    assert reader.crumbs() == ["all", "main"]
    reader.click(0.5, 0)
    assert reader.crumbs() == ["all"]


def test_search_tells_the_share_and_goes_from_match_to_match(reader: Reader) -> None:
    """A function inside itself counts once; letters match either case until one is a capital."""
    reader.open(SHOP)
    calm = reader.pixel(0.7, 1)
    reader.press("/")
    reader.page.keyboard.type("js|q.+y")
    assert reader.text("#found") == "70.0 % in 3 frames"
    assert reader.pixel(0.7, 1) != calm  # what does not match fades
    reader.press("Enter")
    assert reader.text("#frame .name") == "query"
    reader.press("Enter")
    assert reader.text("#frame .name") == "json"
    reader.page.fill("#find", "J")
    assert reader.text("#found") == "no match"
    reader.page.fill("#find", "(")
    assert reader.text("#found") == "not a regular expression"
    assert reader.page.get_attribute("#find", "aria-invalid") == "true"
    reader.press("Escape")
    assert reader.page.input_value("#find") == ""
    assert reader.pixel(0.7, 1) == calm


def test_every_frame_is_reached_and_told_without_a_mouse(reader: Reader) -> None:
    """Arrow keys walk, the live region says where; plus, minus and 0 zoom; Escape takes one thing back at a time."""
    reader.open(SHOP)
    live = reader.page.locator("#live")
    reader.page.locator("#flame canvas").focus()
    said = []
    for key in (
        "ArrowDown",
        "ArrowDown",
        "ArrowRight",
        "ArrowLeft",
        "ArrowDown",
        "ArrowDown",
        "ArrowRight",
        "ArrowDown",
    ):
        reader.press(key)
        said.append((live.text_content() or "").split(".")[0])
    assert said == ["all", "main", "gc", "main", "handle", "query", "json", "json"]
    assert (
        live.text_content() == "json. Level 4, 1 of 1. Self 1.00 s, 10.0 %. Total 1.00 s, 10.0 %. 33.3 % of its caller."
    )
    reader.press("+")
    assert reader.crumbs() == ["all", "main", "handle", "json", "json"]
    reader.press("-")
    assert reader.crumbs() == ["all", "main", "handle", "json"]
    reader.press("ArrowUp", "ArrowUp", "Enter")
    assert reader.crumbs() == ["all", "main", "handle"]
    reader.press("0")
    assert reader.crumbs() == ["all"]
    reader.press("?")
    assert reader.page.locator("dialog[open]").count() == 1
    reader.press("Escape")
    assert reader.page.locator("dialog[open]").count() == 0
    assert reader.text("#frame .name") == "handle"
    reader.press("Escape")
    assert "Point at a frame" in reader.text("#frame")


def test_a_link_holds_the_whole_view(reader: Reader, chromium: "Browser") -> None:
    """Opened elsewhere it shows the same; nonsense in it shows the whole profile."""
    reader.open(SHOP)
    reader.page.select_option("#type", label="samples")
    reader.page.select_option("#order", "alpha")
    reader.page.click("#up")
    reader.page.locator("#flame canvas").focus()
    reader.press("ArrowUp", "ArrowUp", "ArrowUp", "+")
    reader.page.fill("#find", "json")
    link = reader.page.evaluate("location.hash")
    facts, crumbs, found = reader.text("#facts"), reader.crumbs(), reader.text("#found")
    assert crumbs[-1] == "handle"
    context = chromium.new_context()
    other = Reader(context.new_page()).open(SHOP, link)
    assert (other.text("#facts"), other.crumbs(), other.text("#found")) == (facts, crumbs, found)
    assert other.page.input_value("#order") == "alpha"
    assert other.page.get_attribute("#up", "aria-pressed") == "true"
    nonsense = "#view=x&type=9&zoom=99999999&func=-1&focus=1e9.x&hide=,&order=%00&query=%28&sort=constructor&up=2"
    lost = Reader(context.new_page()).open(SHOP, nonsense)
    assert lost.crumbs() == ["all"]
    assert other.wrong == lost.wrong == []
    context.close()


def test_sandwich_shows_callers_and_callees_of_one_function(reader: Reader) -> None:
    """Recursion counts once: json is on 3 s of 10 s, called by handle, calling itself."""
    reader.open(SHOP)
    reader.click(0.6, 3)
    reader.page.click("[data-do=sandwich]")
    assert reader.page.locator("#sandwich h2").all_inner_texts() == ["Callers of json", "Callees of json"]
    reader.page.locator("#callees canvas").focus()
    told = []
    for key in ("ArrowDown", "ArrowDown"):
        reader.press(key)
        told.append(reader.text("#frame"))
    assert "Total 3.00 s, 30.0 %" in told[0]
    assert "Total 1.00 s, 10.0 %" in told[1]
    reader.page.locator("#callers canvas").focus()
    reader.press("ArrowUp", "ArrowUp", "ArrowUp")
    assert reader.text("#frame .name") == "main"
    assert "Total 3.00 s" in reader.text("#frame")
    reader.page.locator("#table button", has_text="query").click()
    assert reader.page.locator("#sandwich h2").first.inner_text() == "Callers of query"
    reader.page.go_back()
    assert reader.page.locator("#sandwich h2").first.inner_text() == "Callers of json"


def test_the_table_sorts_by_every_column_and_follows_the_search(reader: Reader) -> None:
    """Figures are those of `top`."""
    reader.open(SHOP, "#view=top")
    assert [row[0] for row in reader.table()] == ["query", "json", "main", "handle", "gc"]
    assert reader.table()[1] == ["json", "3.00 s\n30.0 %".replace("\n", ""), "3.00 s30.0 %"]
    head = reader.page.locator("#table th button")
    head.nth(2).click()
    assert [row[0] for row in reader.table()][:2] == ["main", "handle"]
    assert reader.page.locator("#table th").nth(2).get_attribute("aria-sort") == "descending"
    head.nth(0).click()
    assert [row[0] for row in reader.table()] == ["gc", "handle", "json", "main", "query"]
    head.nth(0).click()
    assert [row[0] for row in reader.table()] == ["query", "main", "json", "handle", "gc"]
    reader.page.fill("#find", "^(gc|main)$")
    assert [row[0] for row in reader.table()] == ["main", "gc"]


def test_focus_hide_and_collapsed_recursion_change_the_tree_and_can_be_taken_back(reader: Reader) -> None:
    """Focus keeps the stacks with a function, hide takes it out of all stacks, recursion becomes one frame."""
    reader.open(SHOP)
    reader.click(0.6, 3)
    reader.page.click("[data-do=focus]")
    assert reader.text("#facts") == "3.00 s cpu · 4 frames"
    assert reader.crumbs() == ["all", "main", "handle", "json"]  # the place is kept
    reader.page.click("#merge")
    assert reader.text("#facts") == "3.00 s cpu · 3 frames"
    reader.page.click("#chips button")
    assert reader.text("#facts") == "10.0 s cpu · 5 frames"
    reader.press("0")
    reader.click(0.1, 2)
    reader.page.click("[data-do=hide]")
    assert reader.text("#facts") == "10.0 s cpu · 4 frames"
    reader.press("0")
    reader.click(0.1, 2)
    assert reader.crumbs() == ["all", "main", "query"]


def test_sample_types_have_their_own_units(reader: Reader) -> None:
    """The same tree, measured otherwise."""
    reader.open(SHOP)
    reader.page.select_option("#type", label="alloc")
    assert reader.text("#facts") == "56 B alloc · 6 frames"
    reader.page.select_option("#type", label="samples")
    assert reader.text("#facts") == "1,000 samples · 6 frames"


def test_order_and_direction_move_frames_where_they_belong(reader: Reader) -> None:
    """Left heavy puts main before gc, alphabetical the other way; at the bottom the root is the last row."""
    reader.open(SHOP)
    reader.click(0.95, 1)
    assert reader.crumbs()[-1] == "gc"
    reader.press("0")
    reader.page.select_option("#order", "alpha")
    reader.click(0.95, 1)
    assert reader.crumbs()[-1] == "main"
    reader.press("0")
    reader.page.click("#up")
    height = reader.page.locator("#flame canvas").evaluate("(canvas) => canvas.clientHeight")
    reader.page.locator("#flame canvas").click(position={"x": 500, "y": height - ROW * 1.5})
    assert reader.crumbs()[-1] == "main"


def test_a_difference_is_blue_for_less_and_orange_for_more_and_says_so_in_figures(reader: Reader) -> None:
    """By share: 50 % to 50 % is neutral. A legend, figures and words carry the same as the colours."""
    reader.open(DIFF)
    assert reader.text("#legend").split("\n") == ["less", "more than the base"]
    reader.page.select_option("#order", "alpha")  # gone 20 %, grew 25 %, kept 50 %, new 5 %, each as mean of both
    gone, grew, kept, new = (reader.pixel(x, 2) for x in (0.19, 0.44, 0.94, 0.995))
    assert gone[2] > gone[0] + 60  # blue
    for more in (grew, new):
        assert more[0] > more[2] + 60  # orange
    assert max(kept) - min(kept) < 12  # grey
    assert new[0] - new[2] > grew[0] - grew[2]  # the more, the stronger
    told = {}
    for x, name in ((0.1, "gone"), (0.3, "grew"), (0.7, "kept"), (0.975, "new")):
        reader.page.locator("#flame canvas").hover(position={"x": x * 1000, "y": 2 * ROW + 5})
        lines = reader.text("#tip").splitlines()
        assert lines[0] == name
        told[name] = lines[1]
    assert told["gone"] == "Total 0, 0.00 %. Before 80, 40.0 %. Change gone."
    assert told["grew"] == "Total 40, 40.0 %. Before 20, 10.0 %. Change +300.0 %."
    assert told["kept"] == "Total 50, 50.0 %. Before 100, 50.0 %. Change none."
    assert told["new"] == "Total 10, 10.0 %. Before 0, 0.00 %. Change new."
    reader.page.select_option("#absolute", "1")
    reader.page.locator("#flame canvas").hover(position={"x": 500, "y": 2 * ROW + 5})
    assert "Change -50.0 %" in reader.text("#tip")
    reader.page.click("button[data-view=top]")
    reader.page.click("th[data-key=dtotal] button")
    assert [row[0] for row in reader.table()][:2] == ["main", "gone"]


@pytest.mark.slow
def test_dark_and_light_follow_the_system_until_the_reader_says_otherwise(chromium: "Browser") -> None:
    """Ground and graph both change; paper is always light."""
    grounds = {}
    for scheme in ("light", "dark"):
        context = chromium.new_context(color_scheme=scheme)
        reader = Reader(context.new_page()).open(SHOP)
        before = sum(reader.pixel(0.5, 1))
        reader.page.click("#theme")
        after = sum(reader.pixel(0.5, 1))
        assert (before > after) is (scheme == "light")
        grounds[scheme] = reader.page.evaluate("getComputedStyle(document.body).backgroundColor")
        reader.page.emulate_media(media="print")
        assert reader.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert reader.wrong == []
        context.close()
    assert grounds == {"light": "rgb(20, 23, 28)", "dark": "rgb(255, 255, 255)"}


def test_downloads_are_made_in_the_page(reader: Reader) -> None:
    """Folded stacks as `render` writes them, speedscope's format, and a well-formed SVG; no request."""
    reader.open(SHOP)
    found = {}
    for kind in ("folded", "speedscope", "svg"):
        reader.page.click("#save summary")
        with reader.page.expect_download() as download:
            reader.page.click(f"[data-save={kind}]")
        found[download.value.suggested_filename] = Path(download.value.path()).read_text()
    assert list(found) == ["shop-cpu.folded", "shop-cpu.speedscope.json", "shop-cpu.svg"]
    assert sorted(found["shop-cpu.folded"].splitlines()) == render(shop()).splitlines()
    scope = json.loads(found["shop-cpu.speedscope.json"])
    (profile,) = scope["profiles"]
    names = [frame["name"] for frame in scope["shared"]["frames"]]
    stacks = {
        ";".join(names[frame] for frame in path): weight
        for path, weight in zip(profile["samples"], profile["weights"], strict=True)
    }
    assert stacks["main;handle;json;json"] == 10**9
    assert (profile["type"], profile["unit"], profile["endValue"]) == ("sampled", "nanoseconds", 10**10)
    assert elements(found["shop-cpu.svg"]) == {"svg", "rect", "text", "g", "title"}
    assert found["shop-cpu.svg"].count("<title>") == 7
    assert {url.split(":")[0] for url in reader.requests[1:]} <= {"blob"}


def test_the_stack_of_a_frame_can_be_copied(reader: Reader) -> None:
    """Leaf first, one function a line, also where the page has no origin and so no clipboard interface."""
    reader.open(SHOP)
    reader.page.evaluate(
        "document.addEventListener('copy', () => { window.copied = String(document.activeElement.value); })"
    )
    reader.click(0.6, 3)
    reader.page.click("[data-do=copy]")
    reader.page.wait_for_function("() => document.querySelector('[data-do=copy]').textContent !== 'Copy stack'")
    copied = reader.page.evaluate("window.copied ?? null")
    assert copied in {None, "json\nhandle\nmain\n"}
    assert reader.text("[data-do=copy]") == "Copied"


def test_an_empty_profile_says_so(reader: Reader) -> None:
    """No exception, no blank page without a reason, in any view."""
    reader.open(flame_page(Profile(sample_types=(ValueType("cpu", "nanoseconds"),), samples=()), title="idle"))
    for view in ("sandwich", "top", "flame"):
        reader.page.click(f"button[data-view={view}]")
    assert reader.text("#facts") == "0 ns cpu · 0 frames"
    reader.press("ArrowDown", "+", "-", "0", "Enter")


def test_paper_holds_the_whole_graph(reader: Reader) -> None:
    """On the screen a deep graph scrolls; printed it is as high as it is."""
    reader.open(flame_page(parse(b";".join(b"f%d" % i for i in range(99)) + b" 1\n"), title="deep"))
    canvas = reader.page.locator("#flame canvas")
    height = "(canvas) => canvas.clientHeight"
    assert canvas.evaluate(height) < 700
    reader.page.evaluate(
        "addEventListener('beforeprint', () => window.printed = document.querySelector('#flame canvas').style.height)"
    )
    reader.page.pdf()
    assert reader.page.evaluate("window.printed") == f"{100 * ROW}px"
    assert canvas.evaluate(height) < 700


def test_without_scripts_the_table_is_there(chromium: "Browser") -> None:
    """And nothing that would need them."""
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.route(re.compile(".*"), lambda route: route.fulfill(body=SHOP, content_type="text/html"))
    page.goto(URL)
    assert page.locator("noscript td bdi").first.inner_text() == "query"
    assert not page.locator("#views").is_visible()
    context.close()


@pytest.mark.slow
@pytest.mark.parametrize("policy", [CSP, None], ids=["as served", "from disk, by its own policy"])
def test_no_name_does_anything_but_stand_there(policy: str | None, reader: Reader) -> None:
    """Fifty payloads in every field, through every view: 0 dialogs, 0 reports, 0 requests outside."""
    stacks = [
        Sample((Frame(name, name), Frame(HOSTILE_NAMES[at - 1], "x"), Frame("root")), (at + 1,))
        for at, name in enumerate(HOSTILE_NAMES)
    ]
    profile = Profile(sample_types=(ValueType(HOSTILE_NAMES[0], HOSTILE_NAMES[10]),), samples=tuple(stacks))
    page = reader.page
    page.add_init_script(
        "window.reports = []; addEventListener('securitypolicyviolation', (e) => reports.push(e.violatedDirective))"
    )
    reader.open(flame_page(profile, title=HOSTILE_NAMES[1], subtitle=HOSTILE_NAMES[5], base=profile), policy=policy)
    assert reader.page.locator("h1").text_content() == HOSTILE_NAMES[1]
    page.click("button[data-view=top]")
    shown = page.locator("#table tbody button").evaluate_all("(all) => all.map((one) => one.textContent)")
    assert set(shown) == {*HOSTILE_NAMES, "root"}
    page.evaluate("""() => {
      for (let at = 0; at < 51; at++) {
        document.querySelectorAll("#table tbody button")[at].click();
        document.querySelector("button[data-view=top]").click();
      }
      window.told = [];
      const note = () => told.push(document.querySelector("#frame .name")?.textContent);
      new MutationObserver(note).observe(document.querySelector("#frame"), { childList: true });
    }""")
    page.click("button[data-view=flame]")
    page.locator("#flame canvas").focus()
    reader.press("ArrowDown", "ArrowDown", "ArrowDown", *["ArrowRight"] * 49)
    assert set(page.evaluate("told")) >= {*HOSTILE_NAMES, "root", "all"}
    for x in range(20, 980, 60):
        page.mouse.move(x, 190)
        page.mouse.move(x, 210)
    page.click("[data-do=focus]")
    for kind in ("folded", "speedscope", "svg"):
        page.click("#save summary")
        with page.expect_download() as download:
            page.click(f"[data-save={kind}]")
        name = download.value.suggested_filename
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}", name)
        if kind == "svg":
            text = Path(download.value.path()).read_text()
            assert elements(text) == {"svg", "rect", "text", "g", "title"}
    assert page.evaluate("window.reports") == []
    assert [url for url in reader.requests if not url.startswith((URL, "blob:"))] == []


@pytest.mark.slow
def test_an_accessibility_checker_finds_nothing_that_matters(chromium: "Browser") -> None:
    """axe-core, where its file is given by TOE_AXE; every view, light and dark."""
    path = os.environ.get("TOE_AXE")
    if path is None:
        pytest.skip("set TOE_AXE to axe-core's axe.min.js (npm pack axe-core) to run this test")
    for scheme in ("light", "dark"):
        context = chromium.new_context(bypass_csp=True, color_scheme=scheme)
        for body in (SHOP, DIFF):
            for view in ("flame", "sandwich", "top"):
                reader = Reader(context.new_page()).open(body, f"#view={view}&query=a")
                reader.page.evaluate(Path(path).read_text())
                found = reader.page.evaluate(
                    "axe.run().then((r) => r.violations.map((v) => [v.impact, v.id, v.nodes[0].html]))"
                )
                assert [one for one in found if one[0] in {"moderate", "serious", "critical"}] == []
        context.close()
