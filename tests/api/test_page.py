from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from gateway.api import openapi, page
from gateway.api.problems import PROBLEMS
from gateway.api.routes import ENDPOINTS

Api = TestClient[Any, Any]
HTML = page.render(openapi.document(ENDPOINTS, server_url="https://gateway.example"))


class Outline(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loads: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        members = dict(attrs)
        if members.get("id"):
            self.ids.append(str(members["id"]))
        if tag == "a":
            self.links.append(str(members["href"]))
        if tag in ("script", "img", "link", "iframe"):
            self.loads.append(str(members.get("src") or members.get("href")))
        self.inline += [name for name in members if name.startswith("on") or name == "style"]


def outline() -> Outline:
    parser = Outline()
    parser.feed(HTML)
    return parser


def test_every_call_and_every_problem_has_its_anchor() -> None:
    ids = outline().ids
    assert len(ids) == len(set(ids))
    assert {e.name for e in ENDPOINTS} | set(PROBLEMS) <= set(ids)


def test_every_link_on_the_page_leads_somewhere() -> None:
    found = outline()
    assert {link[1:] for link in found.links if link.startswith("#")} <= set(found.ids)


def test_it_loads_only_its_own_files_and_has_nothing_inline() -> None:
    found = outline()
    assert all(path.startswith("/") and not path.startswith("//") for path in found.loads)
    assert found.inline == []
    assert re.findall(r"<script[^>]*>[^<]", HTML) == []


def test_text_is_escaped() -> None:
    assert str(page._prose("a <b> `c<d`")) == "<p>a &lt;b&gt; <code>c&lt;d</code></p>"
    assert "<script>" not in str(page._pretty({"a": '"<script>'}))


async def test_page_style_and_script_are_served(api: Api) -> None:
    for path, kind in (("", "text/html"), ("/style.css", "text/css"), ("/page.js", "text/javascript")):
        answer = await api.get(f"/v1/docs{path}")
        assert (answer.status, answer.content_type) == (200, kind)
    document = await (await api.get("/v1/openapi.json")).json()
    assert document["servers"] == [{"url": "https://gateway.example"}]


@pytest.mark.parametrize("path", ["/v1/docs/docs.html", "/v1/docs/__init__.py"])
async def test_its_sources_are_not(api: Api, path: str) -> None:
    assert (await api.get(path)).status == 404
