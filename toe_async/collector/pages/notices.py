"""Pages that say one thing: what went wrong and the way out, or that somebody has to sign in first."""

from aiohttp import web

from toe_async.collector.errors import Refused
from toe_async.collector.pages.access import Viewer
from toe_async.collector.pages.html import tag
from toe_async.collector.pages.shell import Shell, a, button, div, form, h1, input_, p

_code, _label, _pre = tag("code"), tag("label"), tag("pre")

_HEADINGS = {
    400: "That cannot be read",
    401: "Sign in first",
    403: "Not allowed",
    404: "Nothing here",
    409: "Not as things stand",
    410: "This page has expired",
    413: "Too big",
    422: "Cannot be drawn",
    429: "Too many at once",
    503: "Cannot tell right now",
    507: "The store is full",
}
_AGAIN = frozenset({429, 500, 502, 503, 504})


def failure(shell: Shell, refused: Refused, viewer: Viewer | None, *, here: str, back: str) -> web.Response:
    """Say why a request was not served. `here` is its own address, for trying again, `back` the way out."""
    heading = _HEADINGS.get(refused.status, "That did not work")
    reply = shell.page(
        heading,
        div(
            h1(heading),
            p(_sentence(refused.message), cls="said", role="alert"),
            p(
                a("Try again", href=here, cls="button primary") if refused.status in _AGAIN and here else None,
                a("Back", href=back, cls="button") if back != "/" else None,
                a("All captures", href="/", cls="button"),
                cls="ways",
            ),
            p(f"{refused.status} · {refused.reason}", cls="code"),
            cls="notice",
        ),
        viewer=viewer,
        status=refused.status,
        kind="single",
    )
    if refused.retry_after is not None:
        reply.headers["Retry-After"] = str(refused.retry_after)
    if refused.size is not None:
        reply.headers["Content-Range"] = f"bytes */{refused.size}"
    return reply


def sign_in(shell: Shell, *, after: str, said: str, status: int = 200, wrong: bool = False) -> web.Response:
    """Ask for a token. `after` is where its owner wanted to go."""
    return shell.page(
        "Sign in",
        div(
            h1("Sign in"),
            p(_sentence(said), cls="said bad" if wrong else "said", role="alert" if wrong else None, id="said"),
            form(
                input_(type="hidden", name="next", value=after),
                _label("Token", for_="token"),
                input_(
                    type="password",
                    id="token",
                    name="token",
                    required=True,
                    autofocus=True,
                    autocomplete="off",
                    spellcheck="false",
                    aria_describedby="said",
                    aria_invalid="true" if wrong else None,
                ),
                button("Sign in", cls="primary"),
                method="post",
                action="/ui/login",
            ),
            p("A token of your cluster that is meant for its API server, such as:", cls="hint"),
            _pre(_code("kubectl create token NAME --namespace NAMESPACE --duration 1h")),
            p(
                "It stays in this server's memory for this session alone, and shows what its owner may see. "
                "To go without one, run ",
                _code("kubectl toe ui"),
                ".",
                cls="hint",
            ),
            cls="notice",
        ),
        status=status,
        kind="single",
    )


def shut(shell: Shell, said: str) -> web.Response:
    """Tell somebody who cannot sign in on a page where the way in is."""
    return shell.page(
        "Sign in first", div(h1("Sign in first"), p(said, cls="said"), cls="notice"), status=401, kind="single"
    )


def arrived(shell: Shell, here: str) -> web.Response:
    """Load the address once more, as a page of ours.

    A browser that follows a link from elsewhere (an alert, a chat) keeps our strict cookie back; a page of this origin
    that asks again gets it.
    """
    return shell.page(
        "One moment",
        div(h1("One moment"), p(a("Go on", href=here, cls="button primary")), cls="notice"),
        kind="single",
        refresh=True,
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
