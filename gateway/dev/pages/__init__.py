"""The pages of the embedded stack: templates, styles and scripts, served as they lie here."""

from __future__ import annotations

from importlib.resources import files

import jinja2
from aiohttp import web

TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_FOLDER = files(__package__)
_TEMPLATES = jinja2.Environment(
    loader=jinja2.FunctionLoader(lambda name: (_FOLDER / name).read_text(encoding="utf-8")),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def page(name: str, policy: str, **values: object) -> web.Response:
    """The template `name` as an HTML page under the Content-Security-Policy `policy`."""
    return web.Response(
        text=_TEMPLATES.get_template(name).render(values),
        content_type="text/html",
        charset="utf-8",
        headers={"Content-Security-Policy": policy, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"},
    )


async def asset(request: web.Request) -> web.Response:
    """Route handler for `…/{name}`: a style, script or picture of this folder, nothing else."""
    name = request.match_info["name"]
    kind = TYPES.get("." + name.rpartition(".")[2])
    file = _FOLDER / name
    if kind is None or "/" in name or not file.is_file():
        raise web.HTTPNotFound
    return web.Response(
        body=file.read_bytes(), content_type=kind, charset="utf-8", headers={"Cache-Control": "no-cache"}
    )
