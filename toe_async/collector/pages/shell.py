"""What every page has around it: the head, the bar at the top, the help for the keys, and the answer's headers."""

from aiohttp import web
from msgspec import Struct

from toe_async.collector.pages.access import Viewer
from toe_async.collector.pages.assets import Assets
from toe_async.collector.pages.html import Element, Node, document, tag

a, body, button, dd, dialog, div, dl, dt = map(tag, ("a", "body", "button", "dd", "dialog", "div", "dl", "dt"))
form, h1, h2, head, header, html, img, input_ = map(tag, ("form", "h1", "h2", "head", "header", "html", "img", "input"))
kbd, link, main, meta, p, script, span, title_ = map(
    tag, ("kbd", "link", "main", "meta", "p", "script", "span", "title")
)

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_KEYS = (
    ("/", "search"),
    ("j  k", "next, previous artifact"),
    ("Enter", "open it"),
    ("f", "its flame graph"),
    ("t", "its top functions"),
    ("x", "choose it for comparing"),
    ("d", "compare the two chosen"),
    ("n  p", "older page, newest page"),
    ("Esc", "leave the field, close this"),
    ("?", "this help"),
)


class Shell(Struct, frozen=True):
    """The frame of every page. `title` names the whole, such as the cluster."""

    title: str
    assets: Assets

    def page(
        self,
        heading: str,
        *content: Node,
        viewer: Viewer | None = None,
        status: int = 200,
        kind: str = "",
        refresh: bool = False,
    ) -> web.Response:
        """Answer with a page. `kind` names it for the style sheet; `refresh` loads its address anew at once."""
        root = html(
            head(
                meta(charset="utf-8"),
                meta(name="viewport", content="width=device-width, initial-scale=1"),
                meta(name="color-scheme", content="light dark"),
                meta(http_equiv="refresh", content="0") if refresh else None,
                title_(f"{heading} · {self.title}" if heading != self.title else heading),
                link(rel="icon", href=self.assets.icon, type="image/svg+xml"),
                link(rel="stylesheet", href=self.assets.style),
                script(src=self.assets.script, defer=True),
            ),
            body(
                a("Skip to content", href="#content", cls="skip"),
                self._bar(viewer),
                main(*content, id="content", cls=kind or None),
                _help() if kind == "list" else None,
            ),
            lang="en",
        )
        return web.Response(
            status=status, body=document(root), content_type="text/html", charset="utf-8", headers=HEADERS
        )

    def _bar(self, viewer: Viewer | None) -> Element:
        return header(
            a(img(src=self.assets.icon, alt="", width=22, height=22), span(self.title), href="/", cls="brand"),
            _who(viewer) if viewer is not None else None,
            cls="bar",
        )


def token_field(viewer: Viewer) -> Element:
    """What makes a form one of this session's."""
    return input_(type="hidden", name="csrf", value=viewer.csrf)


def _who(viewer: Viewer) -> Element:
    return div(
        button("Keys", type="button", cls="quiet keys", title="Help for the keys (?)", hidden=True),
        span(viewer.name, cls="who", title="Signed in as this user") if viewer.name else None,
        form(token_field(viewer), button("Sign out", cls="quiet"), method="post", action="/ui/logout")
        if viewer.may_leave
        else None,
        cls="viewer",
    )


def _help() -> Element:
    return dialog(
        h2("Keys", id="keys-title"),
        dl([(dt([[kbd(key), " "] for key in keys.split()]), dd(text)) for keys, text in _KEYS]),
        form(button("Close"), method="dialog"),
        id="keys",
        aria_labelledby="keys-title",
    )
