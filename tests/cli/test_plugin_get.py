"""`kubectl toe get` as a process: whole files, resumed files, hostile names, lying servers."""

import asyncio
import hashlib
import json
import os
import random
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from tests.cli.aggregated import Aggregated, Kept, Plugin, artifact, status
from toe_async.cli.plugin.artifact import read
from toe_async.cli.plugin.naming import file_name, part_name

MIB = 1 << 20
FILE = "web-0-app-abcdefghij-heap.pb.gz"

Lie = Callable[[Aggregated, web.Request, Kept], Awaitable[web.StreamResponse]]


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def part_of(kept: Kept, name: str = FILE) -> str:
    return part_name(name, kept.item["artifact"]["sha256"])


async def test_artifacts_are_fetched_into_files_that_say_where_they_are_from(api: Aggregated, plugin: Plugin) -> None:
    """`{pod}-{container}-{id10}-{leaf}`; stdout holds the paths and nothing else; no progress without a terminal."""
    big = artifact("a", noise(70 * MIB))
    api.put(big, artifact("b", b"", pod="web-1"))
    ran = await plugin.run("get", "a", "b", "-d", ".")
    assert (ran.code, ran.err) == (0, "")
    assert sorted(ran.lines) == [FILE, "web-1-app-abcdefghij-heap.pb.gz"]
    assert (plugin.home / FILE).read_bytes() == big.data
    assert sorted(plugin.files()) == sorted(ran.lines)
    ranges = [request.headers["Range"] for request in api.seen if request.path.endswith("/content")]
    assert ranges[0] == f"bytes=0-{32 * MIB - 1}"
    assert all(int(last) - int(first) < 32 * MIB for first, last in (r[6:].split("-") for r in ranges))


async def test_a_folder_that_is_missing_is_made_and_its_parents_are_not(api: Aggregated, plugin: Plugin) -> None:
    """For its owner alone; a mistyped path makes no tree, and a link that leads nowhere is not followed."""
    api.put(artifact("a", b"bytes"))
    ran = await plugin.run("get", "a", "-d", "night")
    assert (ran.code, ran.lines, ran.err) == (0, [f"night/{FILE}"], "")
    assert (plugin.home / "night").stat().st_mode & 0o777 == 0o700
    (plugin.home / "astray").symlink_to(plugin.home.parent / "elsewhere")
    for place in ("no/such/place", "astray"):
        ran = await plugin.run("get", "a", "-d", place)
        assert (ran.code, ran.out) == (1, "")
        assert f"cannot write into {place}" in ran.err
    assert sorted(path.name for path in plugin.home.iterdir()) == ["astray", "night"]
    assert not (plugin.home.parent / "elsewhere").exists()


@pytest.mark.slow
async def test_what_is_there_already_is_not_fetched_again_and_not_overwritten(api: Aggregated, plugin: Plugin) -> None:
    """The same content is done; another one stays as it is until --force, which replaces even a link itself."""
    api.put(artifact("a", b"new"))
    assert (await plugin.run("get", "a")).code == 0
    api.seen.clear()
    again = await plugin.run("get", "a")
    assert (again.code, again.lines) == (0, [FILE])
    assert not [target for target in api.targets() if "/content" in target]
    (plugin.home / FILE).unlink()
    outside = plugin.home.parent / "outside"
    outside.write_text("precious")
    (plugin.home / FILE).symlink_to(outside)
    refused = await plugin.run("get", "a")
    assert refused.code == 1
    assert "--force" in refused.err
    assert (await plugin.run("get", "a", "--force")).code == 0
    assert (outside.read_text(), (plugin.home / FILE).read_text()) == ("precious", "new")
    assert not (plugin.home / FILE).is_symlink()


@pytest.mark.slow
@pytest.mark.parametrize("hit", [signal.SIGKILL, signal.SIGINT])
async def test_a_killed_download_goes_on_where_it_was(api: Aggregated, plugin: Plugin, hit: signal.Signals) -> None:
    """At most one piece of 32 MiB comes twice; Ctrl-C says that what came is kept."""
    big = artifact("a", noise(48 * MIB))
    api.put(big)
    half = asyncio.Event()

    async def slow_end(request: web.Request, kept: Kept) -> web.StreamResponse:
        first = int(request.headers["Range"][6:].split("-")[0])
        if first < 32 * MIB:
            return await api.content(request, kept)
        reply = web.StreamResponse(status=206, headers=api.headers(kept))
        reply.headers["Content-Range"] = f"bytes {first}-{48 * MIB - 1}/{48 * MIB}"
        reply.content_length = 48 * MIB - first
        await reply.prepare(request)
        await reply.write(kept.data[first : first + 5 * MIB])
        api.sent += 5 * MIB
        half.set()
        await asyncio.Event().wait()
        raise AssertionError

    api.on_content = slow_end
    process = await plugin.start("get", "a")
    await half.wait()
    part = plugin.home / part_of(big)
    while part.stat().st_size < 36 * MIB:
        await asyncio.sleep(0.01)
    process.send_signal(hit)
    _, err = await process.communicate()
    assert plugin.files() == [part.name]
    if hit is signal.SIGINT:
        assert process.returncode == 130
        assert b".part" in err
    api.on_content = None
    ran = await plugin.run("get", "a")
    assert (ran.code, ran.err) == (0, "")
    assert (plugin.home / FILE).read_bytes() == big.data
    assert plugin.files() == [FILE]
    assert api.sent - len(big.data) <= 2 * MIB


@pytest.mark.slow
async def test_a_link_that_breaks_all_the_time_still_ends_whole(api: Aggregated, plugin: Plugin) -> None:
    """Each request is cut, as at the end of the API server's minute; what came counts, nothing comes twice."""
    big = artifact("a", noise(9 * MIB))
    api.put(big)
    cuts = 0

    async def cut(request: web.Request, kept: Kept) -> web.StreamResponse:
        nonlocal cuts
        cuts += 1
        return await api.content(request, kept, cut_after=4 * MIB if cuts < 3 else None)

    api.on_content = cut
    ran = await plugin.run("get", "a")
    assert (ran.code, ran.err) == (0, "")
    assert (plugin.home / FILE).read_bytes() == big.data
    assert cuts == 3
    assert api.sent <= 1.1 * len(big.data)


@pytest.mark.slow
async def test_a_server_that_never_gets_further_is_given_up(api: Aggregated, plugin: Plugin) -> None:
    """Six failures in a row without progress, with growing waits; the sentence says so, the part is kept."""
    api.put(artifact("a", noise(2 * MIB)))

    async def cut(request: web.Request, kept: Kept) -> web.StreamResponse:
        return await api.content(request, kept, cut_after=1000)

    api.on_content = cut
    ran = await plugin.run("get", "a")
    assert ran.code == 1
    assert "no whole answer" in ran.err
    assert [request.path for request in api.seen].count(api.seen[-1].path) == 6


async def test_a_deadline_ends_all_of_it_with_its_own_code(api: Aggregated, plugin: Plugin) -> None:
    """4, and what came is kept."""
    api.put(artifact("a", noise(MIB)))

    async def never(request: web.Request, kept: Kept) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    api.on_content = never
    ran = await plugin.run("get", "a", "--timeout", "1s")
    assert ran.code == 4
    assert "--timeout" in ran.err


async def longer(api: Aggregated, request: web.Request, kept: Kept) -> web.StreamResponse:
    """More bytes than the range that it states."""
    reply = web.StreamResponse(status=206, headers=api.headers(kept))
    reply.headers["Content-Range"] = f"bytes 0-{len(kept.data) - 1}/{len(kept.data)}"
    reply.enable_chunked_encoding()
    await reply.prepare(request)
    await reply.write(kept.data + b"more")
    await reply.write_eof()
    return reply


async def forged(api: Aggregated, request: web.Request, kept: Kept) -> web.StreamResponse:
    """Other bytes under the same digest."""
    return await api.content(request, Kept(kept.item, b"X" * len(kept.data)))


async def swapped(api: Aggregated, request: web.Request, kept: Kept) -> web.StreamResponse:
    """Another artifact's bytes, honestly labelled."""
    return await api.content(request, artifact("a", b"Y" * len(kept.data)))


async def elsewhere(api: Aggregated, request: web.Request, kept: Kept) -> web.StreamResponse:
    """A part that does not begin where it was asked for."""
    headers = {**api.headers(kept), "Content-Range": f"bytes 5-{len(kept.data) - 1}/{len(kept.data)}"}
    return web.Response(status=206, body=kept.data[5:], headers=headers)


async def unlabelled(api: Aggregated, request: web.Request, kept: Kept) -> web.StreamResponse:
    """No ETag."""
    headers = {key: value for key, value in api.headers(kept).items() if key != "ETag"}
    return web.Response(body=kept.data, headers=headers)


async def shrunk(api: Aggregated, request: web.Request, kept: Kept) -> web.StreamResponse:
    """A shorter content under the same digest."""
    return await api.content(request, Kept(kept.item, kept.data[:10]))


async def login_page(api: Aggregated, request: web.Request, kept: Kept) -> web.StreamResponse:
    """What a proxy answers to strangers."""
    return web.Response(text="<html>sign in</html>", content_type="text/html")


async def gone(api: Aggregated, request: web.Request, kept: Kept) -> web.StreamResponse:
    """Deleted meanwhile."""
    return status(404, "NotFound", 'artifacts.artifacts.toe.run "a" not found')


@pytest.mark.parametrize("lie", [longer, forged, swapped, elsewhere, unlabelled, shrunk, login_page, gone])
async def test_bytes_that_are_not_the_promised_ones_never_become_a_file(
    api: Aggregated, plugin: Plugin, lie: Lie
) -> None:
    """Whatever the answer says or holds: exit 1, a sentence, no file but perhaps a part."""
    kept = artifact("a", noise(200_000))
    api.put(kept)
    api.on_content = lambda request, found: lie(api, request, found)
    ran = await plugin.run("get", "a")
    assert ran.code == 1
    assert ran.err.startswith("error: a: ")
    assert "Traceback" not in ran.err
    assert set(plugin.files()) <= {part_of(kept)}
    # Whatever is left does not spoil a later run.
    api.on_content = None
    assert (await plugin.run("get", "a")).code == 0
    assert (plugin.home / FILE).read_bytes() == kept.data


async def test_a_part_that_somebody_wrote_to_is_thrown_away_and_fetched_anew(api: Aggregated, plugin: Plugin) -> None:
    """Its digest tells; the file is right in the same run."""
    kept = artifact("a", noise(MIB))
    api.put(kept)
    (plugin.home / part_of(kept)).write_bytes(b"spoiled" * 1000)
    ran = await plugin.run("get", "a")
    assert (ran.code, ran.err) == (0, "")
    assert (plugin.home / FILE).read_bytes() == kept.data
    assert plugin.files() == [FILE]


async def test_the_part_of_another_content_is_left_alone(api: Aggregated, plugin: Plugin) -> None:
    """The digest is in its name, so two contents never mix."""
    kept, other = artifact("a", noise(MIB)), artifact("a", noise(MIB, seed=2))
    api.put(kept)
    (plugin.home / part_of(other)).write_bytes(other.data[:1000])
    assert (await plugin.run("get", "a")).code == 0
    assert (plugin.home / FILE).read_bytes() == kept.data
    assert (plugin.home / part_of(other)).read_bytes() == other.data[:1000]


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hardlink", "folder", "pipe"])
async def test_what_waits_where_a_part_should_grow_is_refused(api: Aggregated, plugin: Plugin, kind: str) -> None:
    """No link is followed and nothing outside is written to."""
    kept = artifact("a", noise(1000))
    api.put(kept)
    part, outside = plugin.home / part_of(kept), plugin.home.parent / "outside"
    outside.write_text("precious")
    match kind:
        case "symlink":
            part.symlink_to(outside)
        case "dangling":
            part.symlink_to(plugin.home.parent / "made")
        case "hardlink":
            os.link(outside, part)
        case "folder":
            part.mkdir()
        case _:
            os.mkfifo(part)
    ran = await plugin.run("get", "a")
    assert ran.code == 1
    assert "in the way" in ran.err
    assert outside.read_text() == "precious"
    assert not (plugin.home.parent / "made").exists()
    assert not (plugin.home / FILE).exists()


HOSTILE = [
    "..", ".", "", "/", "//", "/etc/passwd", "../../etc/passwd", "..\\..\\x", "a/b", "a\\b", "a\0b", "\0", "~", "~/x",
    "-rf", "--help", ".bashrc", ".ssh/authorized_keys", "con", "CON", "nul.txt", "aux", "lpt1", "x" * 300, "ü" * 200,
    "e\u0301", "a\nb", "a\rb", "a\tb", "\x1b[2J", "\x1b]0;t\x07", "\u202egnp.exe", "\u2066x", "a:b", "a|b", "a>b",
    "a*b", "a?b", '"', "'", "`id`", "$(id)", ";id", "%2e%2e", "%2e%2e%2f", "..%2f", "....//", "..;/", "a/../../b",
    "/dev/null", "file:///etc/passwd", "C:\\x", "a. ", "a.", " a", "a ", "heap.part", "x.manifest.json",
    "\ufeffx", "\U0001f600",
]  # fmt: skip


@pytest.mark.parametrize("where", ["leaf", "pod", "container", "capture", "name"])
async def test_sixty_hostile_names_write_nothing_outside_the_folder(
    api: Aggregated, plugin: Plugin, where: str
) -> None:
    """Whatever the server calls leaf, pod, container, capture or name: one plain file each, in the chosen folder."""
    assert len(set(HOSTILE)) == 60
    for number, hostile in enumerate(HOSTILE):
        data = f"{number}".encode()
        given = {"capture": f"{number:032d}", "pod": f"p{number}", where: hostile}
        api.put(artifact(given.pop("name", f"n{number}"), data, **given))
    (plugin.home / "in").mkdir()
    before = {path for path in plugin.home.parent.rglob("*") if "in" not in path.relative_to(plugin.home.parent).parts}
    ran = await plugin.run("get", "-l", "app=web", "-d", "in", "-o", "json")
    after = {path for path in plugin.home.parent.rglob("*") if "in" not in path.relative_to(plugin.home.parent).parts}
    assert after == before
    assert "Traceback" not in ran.err
    got = plugin.files("in")
    assert all(
        "/" not in name and not name.startswith((".", "-")) and name.isascii() and len(name) < 256 for name in got
    )
    assert not [path for path in (plugin.home / "in").iterdir() if not path.is_file() or path.is_symlink()]
    told = json.loads(ran.out)["files"]
    assert sorted(one["file"] for one in told) == sorted(f"in/{name}" for name in got)
    # A name is a segment of the request's path, too: where it is none, nothing is asked for.
    assert (ran.code, len(got)) == (0, 60) if where != "name" else ran.code == 5 and 40 < len(got) < 60
    for one in told:
        assert hashlib.sha256((plugin.home / one["file"]).read_bytes()).hexdigest() == one["sha256"]


def test_two_hostile_names_never_share_a_file() -> None:
    """What had to be changed ends in a hash."""
    names = {file_name(read(artifact("n", leaf=leaf).item)) for leaf in HOSTILE}
    assert len(names) == len(HOSTILE)


@pytest.mark.slow
async def test_some_of_several_is_partial(api: Aggregated, plugin: Plugin) -> None:
    """5 with a summary; a missing one alone is 1, a forbidden one alone 3."""
    api.put(artifact("a", b"1"))
    some = await plugin.run("get", "a", "missing")
    assert (some.code, some.lines) == (5, [FILE])
    assert some.err.splitlines() == [
        'error: missing: artifacts.artifacts.toe.run "missing" not found', "1 fetched, 1 not.",
    ]  # fmt: skip
    assert (await plugin.run("get", "missing")).code == 1

    async def refuse(request: web.Request, kept: Kept) -> web.StreamResponse:
        return status(403, "Forbidden", 'User "u" cannot get resource "artifacts/content"')

    api.on_content = refuse
    denied = await plugin.run("get", "a", "--force")
    assert (denied.code, denied.out) == (3, "")
    assert 'cannot get resource "artifacts/content"' in denied.err


@pytest.mark.slow
async def test_a_file_of_the_user_s_choice_or_stdout(api: Aggregated, plugin: Plugin, tmp_path: Path) -> None:
    """-O names the file; -O - writes the bytes and nothing else, and a wrong digest is exit 1."""
    kept = artifact("a", noise(3 * MIB))
    api.put(kept)
    assert (await plugin.run("get", "a", "-O", str(tmp_path / "mine"))).lines == [str(tmp_path / "mine")]
    assert (tmp_path / "mine").read_bytes() == kept.data
    process = await plugin.start("get", "a", "-O", "-")
    out, err = await process.communicate()
    assert (process.returncode, out == kept.data, err) == (0, True, b"")
    api.on_content = lambda request, found: forged(api, request, found)
    assert (await plugin.run("get", "a", "-O", "-")).code == 1


async def test_at_most_three_come_at_a_time(api: Aggregated, plugin: Plugin) -> None:
    """However many are wanted."""
    api.put(*(artifact(f"a{number}", b"x", pod=f"p{number}") for number in range(9)))
    busy, most, three = 0, 0, asyncio.Event()

    async def counted(request: web.Request, kept: Kept) -> web.StreamResponse:
        nonlocal busy, most
        busy, most = busy + 1, max(most, busy + 1)
        if busy == 3:
            three.set()
        await three.wait()
        try:
            return await api.content(request, kept)
        finally:
            busy -= 1

    api.on_content = counted
    ran = await plugin.run("get", "--run", "night")
    assert (ran.code, len(ran.lines), most) == (0, 9, 3)


async def test_two_processes_never_write_to_one_part(api: Aggregated, plugin: Plugin) -> None:
    """The second one says so and leaves it alone."""
    kept = artifact("a", noise(MIB))
    api.put(kept)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def waits(request: web.Request, found: Kept) -> web.StreamResponse:
        begun.set()
        await go_on.wait()
        return await api.content(request, found)

    api.on_content = waits
    first = await plugin.start("get", "a")
    await begun.wait()
    second = await plugin.run("get", "a")
    assert (second.code, "another process is writing" in second.err) == (1, True)
    go_on.set()
    await first.communicate()
    assert first.returncode == 0
    assert (plugin.home / FILE).read_bytes() == kept.data


async def test_a_disk_that_takes_no_more_is_told_and_the_part_is_kept(api: Aggregated, plugin: Plugin) -> None:
    """As with a full disk; here by a limit on the size of files."""
    kept = artifact("a", noise(5 * MIB))
    api.put(kept)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, 2 * MIB))

    ran = await plugin.run("get", "a", preexec_fn=limited)
    assert (ran.code, ran.err) == (1, f"error: a: cannot write {part_of(kept)}: File too large\n")
    assert (plugin.home / part_of(kept)).stat().st_size <= 2 * MIB
    assert (await plugin.run("get", "a")).code == 0
    assert (plugin.home / FILE).read_bytes() == kept.data
