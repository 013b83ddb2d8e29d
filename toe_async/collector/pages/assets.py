"""The style sheet, the script and the icon: served from addresses that hold their digest, so they never go stale."""

import hashlib
from importlib.resources import files

from aiohttp import web
from msgspec import Struct

_TYPES = {"style.css": "text/css", "script.js": "text/javascript", "icon.svg": "image/svg+xml"}


class Assets(Struct, frozen=True):
    """Addresses of the three, and what is served there. Read once, from the package."""

    style: str
    script: str
    icon: str
    bodies: dict[str, tuple[str, bytes]]

    def routes(self) -> list[web.RouteDef]:
        """Serve them to anybody: there is nothing of anybody in them."""

        async def serve(request: web.Request) -> web.Response:
            kind, body = self.bodies[request.path]
            headers = {
                "Cache-Control": "public, max-age=31536000, immutable",
                "X-Content-Type-Options": "nosniff",
                "Content-Security-Policy": "default-src 'none'; sandbox",
                "Cross-Origin-Resource-Policy": "same-origin",
            }
            return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)

        return [web.get(path, serve) for path in self.bodies]


def load() -> Assets:
    """Read the assets from the package. Blocks; for the start of a process."""
    paths, bodies = {}, {}
    for name, kind in _TYPES.items():
        body = files(__package__).joinpath("assets", name).read_bytes()
        stem, _, suffix = name.partition(".")
        paths[stem] = f"/ui/assets/{stem}.{hashlib.sha256(body).hexdigest()[:16]}.{suffix}"
        bodies[paths[stem]] = (kind, body)
    return Assets(paths["style"], paths["script"], paths["icon"], bodies)
