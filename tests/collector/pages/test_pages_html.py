"""Text is never markup, and markup cannot be made that acts or leads away."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toe_async.collector.pages.html import Element, document, tag

HOSTILE = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "'\" onmouseover='alert(1)' x=\"",
    "javascript:alert(1)",
    "{{constructor.constructor('alert(1)')()}}",
    "<!--",
    "]]>",
    "&lt;b&gt;&#x3c;",
)


class Read(HTMLParser):
    """What a browser's parser would make of a document."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def read(root: Element) -> Read:
    parser = Read()
    parser.feed(document(root).decode().removeprefix("<!doctype html>\n"))
    parser.close()
    return parser


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_is_that_text_and_nothing_else(text: str) -> None:
    """As content and as an attribute."""
    found = read(tag("p")(text, title=text))
    assert (found.tags, found.text, found.attributes) == (["p"], text, [("title", text)])


@given(st.text())
def test_any_text_makes_one_element_and_one_attribute(text: str) -> None:
    """Whatever the characters are, lone surrogates and controls included."""
    found = read(tag("p")(text, title=text))
    assert found.tags == ["p"]
    assert [name for name, _ in found.attributes] == ["title"]


@pytest.mark.parametrize(
    "character", ["\x00", "\x1b", "\u202e", "\u2066", "\u200b", "\u2028", "\ufeff", "\x85", "\ud800"]
)
def test_a_character_that_deceives_is_shown_as_a_mark(character: str) -> None:
    """It cannot turn around, hide or break what is read beside it."""
    assert read(tag("p")(f"a{character}b")).text == "a\N{REPLACEMENT CHARACTER}b"


@pytest.mark.parametrize(
    "address",
    ["javascript:alert(1)", "//evil.example/", "/\\evil.example", "https://evil.example", "data:text/html,x", "x", "",
     " /x", "/x y", "/\nx"],
)  # fmt: skip
@pytest.mark.parametrize("attribute", ["href", "src", "action", "formaction"])
def test_an_address_that_is_not_of_this_server_is_refused(attribute: str, address: str) -> None:
    """By the builder itself, whoever calls it."""
    with pytest.raises(ValueError, match="address of this server"):
        document(tag("a")("x", **{attribute: address}))


@pytest.mark.parametrize("address", ["/", "/?q=a%20b&run=x", "?a", "#content", "/ui/artifacts/a/b"])
def test_an_address_of_this_server_stays_as_it_is(address: str) -> None:
    """Escaped as an attribute, and read back unchanged."""
    assert read(tag("a")("x", href=address)).attributes == [("href", address)]


@pytest.mark.parametrize("attribute", ["onclick", "onerror", "style", "srcdoc", "srcset", "ping", "A B", "x>"])
def test_an_attribute_that_acts_cannot_be_written(attribute: str) -> None:
    """Nor one whose name would end the element."""
    with pytest.raises(ValueError, match="not an attribute"):
        document(tag("p")("x", **{attribute: "alert(1)"}))


@pytest.mark.parametrize("name", ["style", "iframe", "object", "embed", "base", "P", "p x", "p>"])
def test_an_element_that_frames_or_restyles_cannot_be_made(name: str) -> None:
    """The policy forbids them too; the builder is the first wall."""
    with pytest.raises(ValueError, match="not an element"):
        tag(name)


def test_a_script_has_an_address_and_never_content() -> None:
    """Text inside a script is code, so there is none."""
    with pytest.raises(ValueError, match="no content"):
        tag("script")("alert(1)")
    assert document(tag("script")(src="/ui/assets/script.js", defer=True)).endswith(
        b'<script src="/ui/assets/script.js" defer></script>'
    )


def test_absent_values_leave_no_trace() -> None:
    """None and False are no attribute, None is no child, and nested lists are flat."""
    made = tag("p")(None, ["a", [tag("b")("c", hidden=False, title=None)], None], 7, cls="x", for_="y", data_copy="z")
    assert document(made) == b'<!doctype html>\n<p class="x" for="y" data-copy="z">a<b>c</b>7</p>'


def test_the_package_writes_markup_nowhere_else() -> None:
    """No module but the builder holds a tag in a string."""
    from importlib.resources import files

    modules = [one for one in files("toe_async.collector.pages").iterdir() if one.name.endswith(".py")]
    assert len(modules) > 10
    for module in modules:
        if module.name != "html.py":
            assert not re.search(r"</?[a-z][a-z0-9]*[ >]", module.read_text()), module.name
