"""The pages in a real browser: by mouse and by keyboard, with and without scripts, in both colours."""

import pytest

from tests.collector.pages.conftest import Open, focused
from tests.collector.pages.shelf import Shelf, busy_night, many, stacks

pytestmark = pytest.mark.slow  # a browser takes its seconds

# Contrast of every text that is shown, against what is painted behind it (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const over = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const one of colours) { canvas.fillStyle = one; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const at = node.parentElement;
    if (!node.data.trim() || !at.checkVisibility({ visibilityProperty: true }) || at.closest(':disabled')) continue;
    if (at.closest('.for-readers, .skip, title, option')) continue;
    const behind = [];
    for (let up = at; up; up = up.parentElement) behind.unshift(getComputedStyle(up).backgroundColor);
    const ground = over(['white', ...behind]);
    const ink = over([`rgb(${ground})`, getComputedStyle(at).color]);
    const [high, low] = [light(ground), light(ink)].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    if (ratio < 4.5) bad.push([node.data.trim().slice(0, 40), Math.round(ratio * 100) / 100]);
  }
  return bad;
}"""


# -- finding


def test_a_search_is_typed_and_shows_what_fits(visit: Open, shelf: Shelf) -> None:
    """From the key that focuses the field to the result."""
    busy_night(shelf)
    page = visit()
    page.keyboard.press("/")
    assert focused(page) == "Search"
    page.keyboard.type("checkout")
    page.keyboard.press("Enter")
    page.wait_for_url("**q=checkout*")
    assert page.locator(".capture").count() == 4
    page.locator(".chips a").click()
    page.wait_for_url(lambda address: "q=checkout" not in address)
    assert page.locator(".capture").count() == 15


def test_filters_are_filled_in_applied_and_taken_away(visit: Open, shelf: Shelf) -> None:
    """What was seen is suggested."""
    busy_night(shelf)
    page = visit("/?namespace=shop")
    page.get_by_text("Filters", exact=True).click()
    assert page.locator("#seen-pod option").count() == 3
    page.get_by_label("Pod", exact=True).fill("checkout-0")
    page.get_by_label("File", exact=True).fill("heap.pb.gz")
    page.get_by_label("Within the last").select_option("6h")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**pod=checkout-0**")
    assert page.locator(".artifact").count() == 3
    assert page.locator(".chips li").count() == 3
    page.get_by_role("link", name="Remove the filter File: heap.pb.gz").click()
    page.wait_for_url(lambda address: "leaf=" not in address)
    assert page.locator(".artifact").count() == 7


def test_choosing_a_namespace_takes_effect_at_once(visit: Open, shelf: Shelf) -> None:
    """And keeps the search."""
    busy_night(shelf)
    page = visit("/?namespace=shop&q=cpu")
    page.get_by_label("Namespace").select_option("payments")
    page.wait_for_url("**namespace=payments**")
    assert "q=cpu" in page.url
    assert page.locator(".pod").all_inner_texts() == ["ledger-1"]


# -- the keyboard


def test_the_keyboard_alone_is_enough(visit: Open, shelf: Shelf) -> None:
    """Move, open, come back, choose two, compare."""
    busy_night(shelf)
    page = visit("/?namespace=shop")
    names = [one.get_attribute("aria-label") for one in page.locator(".artifact .open").all()]
    for key, expected in (("j", 0), ("j", 1), ("ArrowDown", 2), ("k", 1), ("ArrowUp", 0), ("k", 0)):
        page.keyboard.press(key)
        assert focused(page) == names[expected]
    page.keyboard.press("Enter")
    page.wait_for_url("**/ui/artifacts/shop/**")
    page.go_back()
    for key in ("j", "x", "j", "j", "x"):
        page.keyboard.press(key)
    assert page.locator("input[name=pick]:checked").count() == 2
    assert "and" in page.locator(".picked").inner_text()
    page.keyboard.press("d")
    page.wait_for_url("**/diff?base=shop/**")


def test_keys_draw_what_the_focus_is_on(visit: Open, shelf: Shelf) -> None:
    """From the list and from the artifact's own page."""
    busy_night(shelf)
    page = visit("/?namespace=shop")
    first = shelf.held[0]
    page.keyboard.press("j")
    page.keyboard.press("t")
    page.wait_for_url(f"**/{first.name}/top")
    page.keyboard.press("f")
    page.wait_for_url(f"**/{first.name}/flame")
    page.goto(page.url.removesuffix("/flame"))
    page.keyboard.press("t")
    page.wait_for_url(f"**/{first.name}/top")


def test_keys_are_letters_while_somebody_types(visit: Open, shelf: Shelf) -> None:
    """And with modifiers they are the browser's."""
    busy_night(shelf)
    page = visit("/?namespace=shop")
    page.keyboard.press("/")
    page.keyboard.type("jkxd?/")
    assert page.get_by_label("Search").input_value() == "jkxd?/"
    assert page.locator("dialog[open]").count() == 0
    page.keyboard.press("Escape")
    assert focused(page) != "Search"
    page.keyboard.press("Control+j")
    assert page.locator(".artifact:focus-within").count() == 0


def test_the_help_opens_and_closes(visit: Open, shelf: Shelf) -> None:
    """By its key and its button; the keys rest meanwhile."""
    busy_night(shelf)
    page = visit()
    page.keyboard.press("?")
    assert page.get_by_role("dialog", name="Keys").is_visible()
    page.keyboard.press("j")
    assert page.locator(".artifact:focus-within").count() == 0
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    page.get_by_role("button", name="Keys").click()
    page.get_by_role("button", name="Close").click()
    assert page.locator("dialog[open]").count() == 0


def test_the_tab_key_goes_through_all_in_the_order_of_reading(visit: Open, shelf: Shelf) -> None:
    """And the focus is always seen."""
    busy_night(shelf)
    page = visit("/?namespace=shop")
    stops = []
    for _ in range(15):
        page.keyboard.press("Tab")
        stops.append(focused(page))
        width = page.evaluate("() => parseFloat(getComputedStyle(document.activeElement).outlineWidth)")
        style = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert (style, width) == ("solid", 2), stops[-1]
    first = "cpu.folded of web-7c9d5b6f4-x2x8q, 03:10:47"
    assert stops == [
        "Skip to content", "test cluster", "Keys", "Namespace", "Search", "Search", "Filters", "hot-web",
        "ProfilingConfig", "pprof", f"Compare {first}", first, f"Flame graph of {first}", f"Top functions of {first}",
        f"Download {first}",
    ]  # fmt: skip
    page.keyboard.press("Home")


def test_a_third_tick_takes_the_place_of_the_first(visit: Open, shelf: Shelf) -> None:
    """There are never three, and one is not enough."""
    busy_night(shelf)
    page = visit("/?namespace=shop")
    button, boxes = page.get_by_role("button", name="Compare", exact=True), page.locator("input[name=pick]")
    assert button.is_disabled()
    boxes.nth(0).check()
    assert button.is_disabled()
    boxes.nth(1).check()
    assert button.is_enabled()
    boxes.nth(4).check()
    assert [box.is_checked() for box in boxes.all()[:5]] == [False, True, False, False, True]


# -- without scripts


def test_everything_works_without_scripts(visit: Open, shelf: Shelf) -> None:
    """Search, filter, page, compare, draw, hold, release and delete, by links and forms."""
    busy_night(shelf)
    page = visit("/?namespace=shop", java_script_enabled=False)
    page.get_by_label("Search").fill("checkout")
    page.get_by_role("button", name="Search").click()
    assert page.locator(".capture").count() == 4
    page.get_by_text("Filters", exact=True).click()
    page.get_by_label("File", exact=True).fill("heap.pb.gz")
    page.get_by_role("button", name="Apply").click()
    assert page.locator(".artifact").count() == 4
    assert not page.get_by_role("button", name="Keys").is_visible()
    boxes = page.locator("input[name=pick]")
    boxes.nth(0).check()
    page.get_by_role("button", name="Compare", exact=True).click()
    assert "1 are ticked" in page.get_by_role("alert").inner_text()
    page.go_back()
    boxes.nth(0).check()
    boxes.nth(2).check()
    page.get_by_role("button", name="Compare", exact=True).click()
    assert "/diff?base=shop/" in page.url
    page.go_back()
    page.locator(".artifact .open").first.click()
    page.get_by_role("link", name="Top functions", exact=True).click()
    page.get_by_label("Function").fill("json")
    page.get_by_role("button", name="Search").click()
    assert page.locator(".function").all_inner_texts() == ["encoding/json.Marshal"]
    page.get_by_role("link", name="heap.pb.gz", exact=True).click()
    if page.get_by_role("button", name="Release").count():
        page.get_by_role("button", name="Release").click()
    page.get_by_label("Hold it, because").fill("INC-1")
    page.get_by_role("button", name="Hold", exact=True).click()
    assert page.locator(".held-why").inner_text() == "INC-1"
    page.get_by_role("button", name="Release").click()
    before = len(shelf.held)
    page.get_by_role("link", name="Delete this artifact").click()
    assert len(shelf.held) == before
    page.get_by_role("button", name="Delete for good").click()
    assert len(shelf.held) == before - 1


# -- artifacts and drawings


def test_a_download_is_a_file_and_a_digest_can_be_copied(visit: Open, shelf: Shelf) -> None:
    """Nothing is shown in its place."""
    held = shelf.put("page.html", content=b"<script>alert(1)</script>")
    page = visit(f"/ui/artifacts/shop/{held.name}", permissions=["clipboard-read", "clipboard-write"])
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "page.html"
    assert download.value.path().read_bytes() == held.content
    page.get_by_role("button", name="Copy the digest").click()
    page.get_by_role("button", name="Copy the digest").get_by_text("Copied").wait_for()
    assert page.evaluate("() => navigator.clipboard.readText()") == held.facts["sha256"]


def test_a_drawing_runs_without_an_origin_and_leads_back(visit: Open, shelf: Shelf) -> None:
    """It reads no cookie and sends nothing; going back is the browser's own."""
    shelf.put(content=stacks())
    page = visit("/")
    page.get_by_role("link", name="Flame graph").click()
    page.wait_for_url("**/flame")
    assert page.evaluate("() => self.origin") == "null"
    assert (
        page.evaluate("() => { try { return document.cookie } catch (error) { return error.name } }") == "SecurityError"
    )
    page.locator("canvas").first.wait_for()
    page.go_back()
    assert page.locator(".capture").count() == 1


# -- looks


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read_in_both_colours(visit: Open, url: str, shelf: Shelf, scheme: str) -> None:
    """At least 4.5 to 1, on every page."""
    busy_night(shelf)
    held = next(one for one in shelf.held if one.hold)
    page = visit("/?namespace=shop&q=web&last=24h", color_scheme=scheme)
    grounds = {"light": "rgb(246, 247, 248)", "dark": "rgb(16, 20, 24)"}
    assert page.evaluate("() => getComputedStyle(document.documentElement).backgroundColor") == grounds[scheme]
    page.locator("input[name=pick]").first.check()
    page.keyboard.press("?")
    assert page.evaluate(CONTRAST) == []
    base = f"/ui/artifacts/shop/{held.name}"
    for path in ("/", base, base + "/top", base + "/delete", "/ui/nothing", "/?q=none"):
        page.goto(url + path)
        assert page.evaluate(CONTRAST) == [], path


@pytest.mark.parametrize("width", [320, 390, 768])
def test_a_narrow_window_never_scrolls_sideways(visit: Open, url: str, shelf: Shelf, width: int) -> None:
    """Names as long as Kubernetes allows included."""
    busy_night(shelf)
    long = shelf.put("x" * 92 + ".folded", pod="p" * 253, run="r" * 253, trigger="t" * 1024, hold="h" * 253)
    page = visit("/?namespace=shop&pod=" + "p" * 253, viewport={"width": width, "height": 700})
    base = f"/ui/artifacts/shop/{long.name}"
    for path in ("/?namespace=shop", base, base + "/top", base + "/delete", "/ui/nothing", "/?q=" + "q" * 253):
        page.goto(url + path)
        over = page.evaluate("() => document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth")
        assert over <= 0, path


def test_every_control_has_a_name_and_every_page_its_landmarks(visit: Open, url: str, shelf: Shelf) -> None:
    """For who hears the pages."""
    busy_night(shelf)
    base = f"/ui/artifacts/shop/{shelf.held[0].name}"
    page = visit()
    for path in ("/?namespace=shop&q=cpu", base, base + "/top", base + "/delete", "/ui/nothing"):
        page.goto(url + path)
        unnamed = page.evaluate(
            "() => [...document.querySelectorAll('a, button, input:not([type=hidden]), select')].filter((one) => "
            "!(one.getAttribute('aria-label') || one.textContent.trim() || (one.labels && one.labels.length)))"
            ".map((one) => one.outerHTML)"
        )
        assert unnamed == [], path
        ids = page.evaluate("() => [...document.querySelectorAll('[id]')].map((one) => one.id)")
        assert len(ids) == len(set(ids)), path
        assert page.locator("h1").count() == 1
        assert page.locator("main").count() == 1
        assert page.locator("html[lang=en]").count() == 1
        assert page.title().endswith("test cluster")


def test_two_thousand_rows_stay_quick(visit: Open, shelf: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    """Painted in moments; a key moves at once."""
    many(shelf, 2000)
    page = visit("/?namespace=shop&limit=2000")
    assert page.locator(".artifact").count() == 2000
    timing = page.evaluate(
        "() => { const got = performance.getEntriesByType('navigation')[0]; "
        "const paint = performance.getEntriesByName('first-contentful-paint')[0]; "
        "return [got.responseStart, got.domContentLoadedEventEnd, paint ? paint.startTime : 0]; }"
    )
    key = page.evaluate(
        "() => { const from = performance.now(); for (let n = 0; n < 50; n++) { "
        "document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'j', bubbles: true })); "
        "document.body.offsetHeight; } return (performance.now() - from) / 50; }"
    )
    with capsys.disabled():
        first, ready, painted = timing
        print(f"\n2,000 rows: byte {first:.0f}, ready {ready:.0f}, painted {painted:.0f}, a key {key:.1f} ms")
    assert timing[2] < 5000
    assert key < 100
