"""What stands in for Stripe.js: the script that a page loads, and the frame with the card that it puts there."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from aiohttp import web

_FILES: Final = {
    "/v3/stripe.js": ("stripe.js", "text/javascript"),
    "/v3/card": ("card.html", "text/html"),
    "/v3/card.js": ("card.js", "text/javascript"),
    "/v3/card.css": ("card.css", "text/css"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Cache-Control": "no-cache",
}


def answer(path: str) -> web.Response:
    """The file that a page or its frame asks for."""
    if path not in _FILES:
        return web.Response(status=404, text="Unknown file")
    name, kind = _FILES[path]
    body = files(__package__).joinpath(name).read_bytes()
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)
