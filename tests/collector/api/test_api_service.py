"""Reading through the whole collector: what was uploaded is found, and only by those who may."""

import gzip

import pytest

from tests.collector.rig import READ, Collector, Start, sha256

BODY = gzip.compress(b"profile " * 4000)
LIST, ONE = f"{READ}/shop/artifacts", f"{READ}/shop/artifacts/abcdefghij-heap.pprof"


@pytest.fixture
async def registered(collector: Collector) -> Collector:
    assert (await collector.register())[0] == 201
    return collector


async def test_uploads_are_listed_newest_first_in_pages_and_by_run(registered: Collector) -> None:
    """limit and continue; ?run= takes a name or a UID; ?since= an instant or a duration."""
    for number in range(5):
        capture = "abcde"[number] * 32
        await registered.register(id=capture, run="cold" if number == 2 else "hot-carts", runUID=f"u-{number}")
        await registered.put(BODY + bytes([number]), capture=capture)

    async def names(query: str = "") -> tuple[list[str], str]:
        status, body = await registered.ask("GET", LIST + query, registered.reader)
        assert (status, body["kind"], body["apiVersion"]) == (200, "ArtifactList", "artifacts.toe.run/v1alpha1")
        return [item["metadata"]["name"][:1] for item in body["items"]], body["metadata"].get("continue", "")

    assert await names() == (list("edcba"), "")
    first, go_on = await names("?limit=2")
    second, go_on = await names(f"?limit=2&continue={go_on}")
    third, end = await names(f"?limit=2&continue={go_on}")
    assert (first, second, third, end) == (list("ed"), list("cb"), ["a"], "")
    assert await names("?run=cold") == (["c"], "")
    assert await names("?run=u-4") == (["e"], "")
    assert (await names("?since=1h"))[0] == list("edcba")
    assert await names("?since=2999-01-01T00:00:00Z") == ([], "")


async def test_a_user_without_rights_sees_nothing_not_even_whether_it_is_there(registered: Collector) -> None:
    """The same 403 for what exists and what does not, in every verb; other namespaces' rights do not count."""
    await registered.put(BODY)
    eve = registered.api.token("eve")
    registered.api.grant("eve", "bank", "list", "get", "delete")
    registered.api.grant("eve", "bank", "get", resource="artifacts/content")
    answers = set()
    for name in ("abcdefghij-heap.pprof", "no-such"):
        for method, path in (("GET", ""), ("DELETE", ""), ("PATCH", ""), ("GET", "/content"), ("GET", "/render")):
            status, error = await registered.ask(method, f"{READ}/shop/artifacts/{name}{path}", eve)
            assert (status, error["reason"]) == (403, "Forbidden")
            answers.add(error["message"].replace(name, "NAME"))
    assert len(answers) == 5
    for method in ("GET", "DELETE"):
        assert (await registered.ask(method, LIST, eve))[0] == 403
    assert (await registered.ask("GET", f"{READ}/bank/artifacts", eve))[1]["items"] == []
    assert (await registered.ask("GET", f"{READ}/bank/artifacts/abcdefghij-heap.pprof", eve))[0] == 404
    assert (await registered.ask("GET", LIST))[0] == 401
    assert (await registered.ask("GET", LIST, registered.uploader()))[0] == 401


async def test_metadata_does_not_give_bytes(registered: Collector) -> None:
    """`get artifacts` and `get artifacts/content` are two rights, and neither is a view or a hold."""
    await registered.put(BODY)
    bob = registered.api.token("bob")
    registered.api.grant("bob", "shop", "list", "get")
    assert (await registered.ask("GET", ONE, bob))[0] == 200
    assert (await registered.ask("GET", ONE + "/content", bob))[0] == 403
    assert (await registered.ask("GET", ONE + "/render?as=top", bob))[0] == 403
    assert (await registered.ask("DELETE", ONE, bob))[0] == 403
    assert (await registered.ask("DELETE", LIST, bob))[0] == 403
    assert (await registered.ask("PATCH", ONE, bob))[0] == 403


async def test_a_deleted_artifact_is_gone_for_the_next_process_too(start: Start) -> None:
    """From the list, from disk, and from the memory of the next process."""
    async with start() as first:
        await first.register()
        await first.put(BODY)
        async with first.call("GET", ONE + "/content", first.reader) as reply:
            assert sha256(await reply.read()) == sha256(BODY)
        status, gone = await first.ask("DELETE", ONE, first.reader)
        assert (status, gone["details"]["name"]) == (200, "abcdefghij-heap.pprof")
        assert not first.files()
    async with start() as second:
        assert (await second.ask("GET", LIST, second.reader))[1]["items"] == []
