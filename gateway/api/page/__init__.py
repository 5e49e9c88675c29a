"""The documentation that the gateway serves of itself: the OpenAPI document, and a page to read it by.

The page is rendered from the document alone, with a style sheet and a few lines of script of its own: nothing on it
comes from anywhere else.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from gateway.api.problems import GROUPS

FOLDER: Final = Path(__file__).parent
FILES: Final = {"style.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8"}
_CODE: Final = re.compile(r"`([^`]+)`")


def register(app: web.Application) -> None:
    for name, content_type in FILES.items():

        async def serve(_: web.Request, name: str = name, content_type: str = content_type) -> web.FileResponse:
            return web.FileResponse(FOLDER / name, headers={"Content-Type": content_type})

        app.router.add_get(f"/v1/docs/{name}", serve)


def render(document: dict[str, Any]) -> str:
    """The page of an OpenAPI document made by `openapi.document`."""
    return (
        _environment()
        .get_template("docs.html")
        .render(document=document, groups=_grouped(document), problems=GROUPS, server=document["servers"][0]["url"])
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"prose": _prose, "pretty": _pretty, "fields": _fields, "kind": _kind, "curl": _curl}
    return environment


def _grouped(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Operations under their tags, in the order of both."""
    operations = [
        {"method": method.upper(), "path": path, **operation}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    return [
        {**tag, "operations": [operation for operation in operations if tag["name"] in operation["tags"]]}
        for tag in document["tags"]
    ]


def _prose(text: str) -> Markup:
    """Paragraphs, with `code` set as code."""
    paragraphs = (_CODE.sub(r"<code>\1</code>", str(escape(part))) for part in text.split("\n\n"))
    return Markup("".join(f"<p>{part}</p>" for part in paragraphs))  # noqa: S704 - escaped above


def _pretty(value: Any) -> Markup:
    """JSON with spans for its strings, numbers and names, so that the style sheet can color it."""
    text = str(escape(json.dumps(value, indent=2, ensure_ascii=False)))
    text = re.sub(r"&#34;(.*?)&#34;(:?)", _word, text)
    return Markup(re.sub(r"(?<=[ \[])(-?\d[\d.]*|true|false|null)(?=[,\n\]]|$)", r'<span class="n">\1</span>', text))  # noqa: S704


def _word(match: re.Match[str]) -> str:
    kind = "k" if match[2] else "s"
    return f'<span class="{kind}">&#34;{match[1]}&#34;</span>{match[2]}'


def _fields(reference: dict[str, Any], document: dict[str, Any], depth: int = 0) -> list[dict[str, Any]]:
    """The members of a referenced schema as rows, nested objects indented under their own."""
    schema = _resolve(reference, document)
    rows: list[dict[str, Any]] = []
    for name, member in schema.get("properties", {}).items():
        required = name in schema.get("required", ()) and "default" not in member
        rows.append({"name": name, "schema": member, "required": required, "depth": depth})
        if depth < 2 and (nested := _nested(member)):
            rows += _fields(nested, document, depth + 1)
    return rows


def _resolve(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in schema:
        return schema
    found: dict[str, Any] = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return found


def _nested(member: dict[str, Any]) -> dict[str, Any] | None:
    candidates = [member, *member.get("anyOf", ()), *member.get("allOf", ()), member.get("items", {})]
    return next((candidate for candidate in candidates if "$ref" in candidate), None)


def _kind(member: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "anyOf" in member:
        return " or ".join(_kind(variant) for variant in member["anyOf"])
    if "$ref" in member or "allOf" in member:
        return "object"
    if "enum" in member:
        return " · ".join(map(str, member["enum"]))
    if "const" in member:
        return json.dumps(member["const"])
    if member.get("type") == "array":
        return f"list of {_kind(member['items'])}"
    return str(member.get("format") or member.get("type", "any")) + _bounds(member)


def _bounds(member: dict[str, Any]) -> str:
    low, high = member.get("minimum"), member.get("maximum")
    if low is None and high is None:
        return ""
    return f" {low}–{high}" if high is not None and low is not None else f" ≥ {low}" if high is None else f" ≤ {high}"


def _curl(operation: dict[str, Any], server: str, *, short: bool = False) -> str:
    """The operation as a command line; `short`: with each of the body's members on one line."""
    lines = [f"curl {server}{operation['path'].replace('{id}', '$SESSION')}"]
    if operation["method"] != "GET":
        lines[0] = lines[0].replace("curl ", f"curl -X {operation['method']} ", 1)
    if operation["x-scope"]:
        lines.append('-H "Authorization: Bearer $KEY"')
    if any(parameter["name"] == "Idempotency-Key" and parameter["required"] for parameter in operation["parameters"]):
        lines.append('-H "Idempotency-Key: $(uuidgen)"')
    example = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
    if example:
        body = _lines(example) if short else json.dumps(example, indent=2)
        lines += ["-H 'Content-Type: application/json'", "-d '" + body.replace("\n", "\n  ") + "'"]
    return " \\\n  ".join(lines)


def _lines(example: dict[str, Any]) -> str:
    members = (f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in example.items())
    return "{\n" + ",\n".join(members) + "\n}"
