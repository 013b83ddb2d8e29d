"""`kubectl toe open`, `diff` and `ui`: pages in a private folder or on loopback, tables on stdout."""

import asyncio
import json
import re
import signal
import stat
from pathlib import Path

import aiohttp
import msgspec
import pytest

from tests.cli.aggregated import Aggregated, Plugin, artifact
from toe_async.cli.plugin.viewing import has_display

PAGE = b"<!doctype html><title>flame</title>"
TOP = {
    "kind": {"type": "cpu", "unit": "nanoseconds"}, "total": 4_000_000_000,
    "types": [{"type": "samples", "unit": "count"}, {"type": "cpu", "unit": "nanoseconds"}],
    "rows": [
        {"function": "main.work\x1b[31m", "flat": 3_000_000_000, "cumulative": 4_000_000_000},
        {"function": "main.main", "flat": 0, "cumulative": 4_000_000_000},
    ],
}  # fmt: skip


@pytest.fixture
def profiled(api: Aggregated) -> Aggregated:
    """Two artifacts and their views."""
    api.put(artifact("a-cpu"), artifact("b-cpu"))
    api.rendered = {
        "flame": ("text/html; charset=utf-8", PAGE),
        "diff": ("text/html; charset=utf-8", PAGE),
        "top": ("application/json", msgspec.json.encode(TOP)),
        "folded": ("text/plain; charset=utf-8", b"main;work 300\nmain 100\n"),
    }
    return api


async def test_a_page_goes_to_a_private_folder_and_its_path_to_stdout(profiled: Aggregated, plugin: Plugin) -> None:
    """Where no browser can be seen; nobody else can read the folder."""
    ran = await plugin.run("open", "a-cpu", environ=plugin.environment(TMPDIR=str(plugin.home)))
    assert (ran.code, ran.err) == (0, "")
    page = Path(ran.lines[0])
    assert (page.name, page.read_bytes()) == ("a-cpu.html", PAGE)
    assert page.parent.parent == plugin.home
    assert stat.S_IMODE(page.parent.stat().st_mode) == 0o700
    assert plugin.files() == [page.parent.name, f"{page.parent.name}/a-cpu.html"]
    assert profiled.targets()[0].endswith("/a-cpu/render?as=flame")


async def test_a_browser_that_can_be_seen_is_opened(profiled: Aggregated, plugin: Plugin, tmp_path: Path) -> None:
    """With the page's address; --no-browser is a no."""
    seen, browser = tmp_path / "seen", tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {seen}\n')
    browser.chmod(0o755)
    environ = plugin.environment(TMPDIR=str(plugin.home), BROWSER=str(browser))
    ran = await plugin.run("diff", "a-cpu", "b-cpu", "--sample", "cpu", environ=environ)
    assert (ran.code, ran.out) == (0, "")
    assert re.fullmatch(rf"file://{plugin.home}/toe-\w+/b-cpu-a-cpu.html\n", seen.read_text())
    assert dict(profiled.seen[0].query) == {"as": "diff", "base": "a-cpu", "sample": "cpu"}
    assert "/b-cpu/render" in profiled.targets()[0]
    quiet = await plugin.run("open", "a-cpu", "--no-browser", environ=environ)
    assert quiet.out.endswith("a-cpu.html\n")
    assert len(seen.read_text().splitlines()) == 1


@pytest.mark.slow
async def test_a_page_can_be_written_where_the_user_says(profiled: Aggregated, plugin: Plugin) -> None:
    """Never over another file without --force; - is stdout."""
    assert (await plugin.run("open", "a-cpu", "-O", "page.html")).out == "page.html\n"
    assert (plugin.home / "page.html").read_bytes() == PAGE
    again = await plugin.run("open", "a-cpu", "-O", "page.html")
    assert (again.code, "--force" in again.err) == (1, True)
    assert (await plugin.run("open", "a-cpu", "-O", "-")).out.encode() == PAGE
    assert plugin.files() == ["page.html"]


async def test_a_top_is_a_table_of_times_and_shares(profiled: Aggregated, plugin: Plugin) -> None:
    """Function names are the program's own and hostile; JSON is what the server said."""
    ran = await plugin.run("open", "a-cpu", "--as", "top")
    assert (ran.code, ran.err) == (0, "")
    assert [line.split() for line in ran.lines] == [
        ["cpu:", "4.00s", "in", "all"],
        ["FLAT", "FLAT%", "CUM", "CUM%", "FUNCTION"],
        ["3.00s", "75.0%", "4.00s", "100.0%", "main.work"],
        ["0s", "0.0%", "4.00s", "100.0%", "main.main"],
    ]
    assert json.loads((await plugin.run("open", "a-cpu", "--as", "top", "-o", "json")).out) == TOP


async def test_a_difference_as_a_table_is_reckoned_from_both_stacks(profiled: Aggregated, plugin: Plugin) -> None:
    """By the sample type of the later one; of a base in another namespace, too."""
    profiled.put(artifact("c-cpu", namespace="bank"))
    ran = await plugin.run("diff", "bank/c-cpu", "b-cpu", "--top")
    assert (ran.code, ran.err) == (0, "")
    assert ran.lines[0].startswith("cpu: ")
    assert ran.lines[1].split() == ["FLAT", "BEFORE", "FLAT", "CHANGE", "CUM", "CHANGE", "FUNCTION"]
    assert {line.split()[-1] for line in ran.lines[2:]} == {"work", "main"}
    assert [target.rpartition("/namespaces/")[2] for target in profiled.targets()] == [
        "shop/artifacts/b-cpu/render?as=top",
        "bank/artifacts/c-cpu/render?as=folded&sample=cpu",
        "shop/artifacts/b-cpu/render?as=folded&sample=cpu",
    ]


@pytest.mark.parametrize("view", ["flame", "top"])
async def test_a_view_of_another_type_is_never_opened(profiled: Aggregated, plugin: Plugin, view: str) -> None:
    """A page comes as text/html or not at all, a table as JSON that is one."""
    profiled.rendered = {"flame": ("application/javascript", b"alert()"), "top": ("application/json", b'{"rows": 5}')}
    ran = await plugin.run("open", "a-cpu", "--as", view, environ=plugin.environment(TMPDIR=str(plugin.home)))
    assert (ran.code, ran.out, plugin.files()) == (1, "", [])
    assert "is that the collector" in ran.err


@pytest.mark.parametrize(
    ("environ", "platform", "shown"),
    [
        ({}, "linux", False), ({"DISPLAY": ":0"}, "linux", True), ({"WAYLAND_DISPLAY": "w"}, "linux", True),
        ({"BROWSER": "x"}, "linux", True), ({}, "darwin", True), ({"SSH_CONNECTION": "x"}, "darwin", False),
        ({"DISPLAY": ""}, "linux", False),
    ],
)  # fmt: skip
def test_a_browser_is_opened_only_where_it_is_seen(environ: dict[str, str], platform: str, shown: bool) -> None:
    """Not one in the terminal, and not one on the far side of ssh."""
    assert has_display(environ, platform) is shown


async def test_the_user_s_own_pages_are_served_on_loopback_for_one_key(profiled: Aggregated, plugin: Plugin) -> None:
    """Without the key nothing, with it everything; no credential in any answer; Ctrl-C is a good end."""
    process = await plugin.start("ui")
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    assert re.fullmatch(r"http://127\.0\.0\.1:[0-9]+/ui/open\?key=[\w-]{43}", url)
    root = url.partition("/ui/")[0]
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
            async with browser.get(f"{root}/") as stranger:
                assert stranger.status in {401, 403}
                assert "a-cpu" not in await stranger.text()
            async with browser.get(url) as first:
                page = await first.text()
                assert (first.status, str(first.url)) == (200, f"{root}/")
            assert "a-cpu" in page
            assert "t0" not in [*re.findall(r"\w+", page), *(str(value) for value in first.headers.values())]
            async with browser.get(f"{root}/ui/artifacts/shop/a-cpu/flame") as flame:
                assert (flame.status, await flame.read()) == (200, PAGE)
        async with aiohttp.ClientSession() as second, second.get(url) as used:
            assert used.status == 403
    finally:
        process.send_signal(signal.SIGINT)
        _, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")


async def test_a_port_that_is_taken_is_told(profiled: Aggregated, plugin: Plugin) -> None:
    """In a sentence."""
    taken = profiled.url.rpartition(":")[2]
    ran = await asyncio.wait_for(plugin.run("ui", "--port", taken), 30)
    assert (ran.code, "cannot listen on 127.0.0.1:" in ran.err) == (1, True)
