"""The file itself: closed, small, the same every time, and nothing in it that a name could break out of."""

import base64
import hashlib
import html
import json
import re

import pytest
from hostilenames import HOSTILE_NAMES
from hypothesis import example, given
from hypothesis import strategies as st

from toe_async.profiles.model import Frame, Profile, ProfileError, Sample, ValueType
from toe_async.profiles.page import CSP, flame_page, policy_of
from toe_async.profiles.parse import parse

FOLDED = parse(b"main;work;a 5\nmain;work 2\nmain;b 3\n")
SCRIPTS = re.compile(r"<script([^>]*)>(.*?)</script>", re.DOTALL)


def pieces(page: bytes) -> tuple[dict[str, object], str, str]:
    """The data, the script and the style of a page."""
    text = page.decode()
    (kind, data), (plain, script) = SCRIPTS.findall(text)
    assert 'type="application/json"' in kind
    assert plain == ""
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    return json.loads(data), script, style


def test_script_and_style_are_small_and_the_only_ones_that_the_policy_lets_run() -> None:
    """60 KB at most, named by digest in the header's policy and in the file's own."""
    page = flame_page(FOLDED, title="t", subtitle="s")
    _, script, style = pieces(page)
    assert len(script.encode()) + len(style.encode()) <= 60_000
    (meta,) = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page.decode())
    for policy in (CSP, html.unescape(meta)):
        rules = dict(rule.strip().partition(" ")[::2] for rule in policy.split(";"))
        assert rules["default-src"] == "'none'"
        for name, text in (("script-src", script), ("style-src", style)):
            digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
            assert rules[name] == f"'sha256-{digest}'"
        assert "connect-src" not in rules
        assert rules["require-trusted-types-for"] == "'script'"
    assert "frame-ancestors 'none'" in CSP
    assert "sandbox allow-scripts" in CSP
    assert "allow-same-origin" not in CSP
    assert "\n" not in CSP


def test_the_file_asks_nobody_for_anything() -> None:
    """No address but the favicon in the file, the names of two formats and nothing else."""
    page = flame_page(FOLDED, title="t", subtitle="s").decode()
    assert set(re.findall(r"""(?:src|href)=["']?([^"'> ]{0,12})""", page)) == {"data:image/s"}
    assert set(re.findall(r"\bhttps?://[\w.]+", page)) == {"http://www.w3.org", "https://www.speedscope.app"}
    assert "url(" not in page
    assert "innerHTML" not in page
    assert "eval(" not in page


def test_the_same_arguments_give_the_same_bytes() -> None:
    """A page can be compared and kept by its digest."""
    assert flame_page(FOLDED, title="t", base=FOLDED) == flame_page(FOLDED, title="t", base=FOLDED)


def test_the_tree_is_in_the_file_as_it_was_measured() -> None:
    """Preorder by depth, own values by node, functions by number."""
    data, _, _ = pieces(flame_page(FOLDED, title="t", subtitle="s"))
    assert data["names"] == ["", "main", "work", "a", "b"]
    assert (data["depths"], data["frames"]) == ([0, 1, 2, 3, 2], [0, 1, 2, 3, 4])
    assert (data["at"], data["own"]) == ([2, 1, 1], [[2, 5, 3]])
    assert data["types"] == [["samples", "count"]]
    assert data["diff"] is False


def test_a_base_stands_beside_the_profile_and_so_do_the_two_columns_of_folded_text() -> None:
    """The first columns are what is now, the others what was before."""
    given_, _, _ = pieces(flame_page(parse(b"a 3\nb 4\n"), title="t", base=parse(b"a 1\n")))
    columns, _, _ = pieces(flame_page(parse(b"a 1 3\nb 0 4\n"), title="t"))
    assert given_["own"] == [[3, 4], [1, 0]]
    assert {**columns, "title": ""} == {**given_, "title": ""}


def test_it_begins_with_the_sample_type_that_was_asked_for() -> None:
    """Else with the one that the profile would show; one that is not there is refused with those that are."""
    two = Profile(
        sample_types=(ValueType("samples", "count"), ValueType("cpu", "nanoseconds")),
        samples=(Sample((Frame("a"),), (1, 2)),),
    )
    assert pieces(flame_page(two, title="t"))[0]["shown"] == 1
    assert pieces(flame_page(two, title="t", sample="samples"))[0]["shown"] == 0
    with pytest.raises(ProfileError, match="samples, cpu"):
        flame_page(two, title="t", sample="heap")
    with pytest.raises(ProfileError, match="nothing to compare"):
        flame_page(two, title="t", base=Profile(sample_types=(ValueType("x", "y"),), samples=()))


def test_without_scripts_there_is_a_table() -> None:
    """The hottest functions, escaped."""
    page = flame_page(parse(b"<main>;a&b 1234567\n"), title="t").decode()
    (table,) = re.findall(r"<noscript>(.*?)</noscript>", page, re.DOTALL)
    assert "<td>1,234,567<td>1,234,567<td><bdi>a&amp;b</bdi>" in table
    assert "<bdi>&lt;main&gt;</bdi>" in table


@pytest.mark.parametrize("name", HOSTILE_NAMES, ids=lambda name: repr(name[:24]))
def test_a_hostile_name_stays_a_string(name: str) -> None:
    """As function, file, title, subtitle, type and unit: the file's elements stay the same, the name survives."""
    calm = Profile(sample_types=(ValueType("n", "u"),), samples=(Sample((Frame("f", "f", 1),), (1,)),))
    wild = Profile(sample_types=(ValueType(name, name),), samples=(Sample((Frame(name, name, 1),), (1,)),))
    page = flame_page(wild, title=name, subtitle=name)
    elements = re.compile(r"<[^>]*>?")
    quiet = flame_page(calm, title="t", subtitle="s").decode()
    assert elements.findall(page.decode()) == elements.findall(quiet)
    data, script, style = pieces(page)
    assert data["names"] == ["", name]
    assert (script, style) == pieces(quiet.encode())[1:]


@given(st.text(max_size=20))
@example("\ud800")
@example("")
def test_no_text_at_all_changes_the_elements_of_the_file(text: str) -> None:
    """Whatever it is: empty, or half a character."""
    page = flame_page(Profile(sample_types=(ValueType("n", "u"),), samples=(Sample((Frame(text),), (1,)),)), title=text)
    data, _, _ = pieces(page)
    assert data["names"] == ["", text]
    assert page.count(b"<") == flame_page(parse(b"a 1\n"), title="t").count(b"<")


def _page() -> bytes:
    return flame_page(parse(b"a;b 1\na;c 2\n"), title="t", subtitle="s")


def test_a_page_of_another_release_is_served_under_the_policy_that_it_declares() -> None:
    """Also as an API server's proxy writes it, which turns quotes into entities."""
    page = _page().decode()
    own = re.findall(r"(?:script|style)-src 'sha256-([^']+)'", CSP)
    other = [digest[::-1].removeprefix("=") + "=" for digest in own]
    for before, after in zip(own, other, strict=True):
        page = page.replace(before, after)
    expected = CSP.replace(own[0], other[0]).replace(own[1], other[1])
    assert policy_of(page.encode()) == expected
    assert policy_of(page.replace("'", "&#39;").encode()) == expected
    assert policy_of(_page()) == CSP


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(r"script-src '[^']*'", "script-src 'unsafe-inline'", id="wider"),
        pytest.param("script-src 'sha256-", "script-src 'sha256-x; x '", id="no digest"),
        pytest.param("^", "<p>", id="something before"),
        pytest.param('<meta charset="utf-8">', "<title>x</title>", id="another beginning"),
    ],
)
def test_no_page_widens_the_policy(before: str, after: str) -> None:
    assert policy_of(re.sub(before, after, _page().decode(), count=1).encode()) == CSP
