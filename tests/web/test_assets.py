"""What the package gives the server to serve."""

from __future__ import annotations

import re

import pytest

from gateway.web import FILES, HEADERS, Asset, content_security_policy


@pytest.mark.parametrize(("url", "asset"), FILES.items())
def test_every_asset_exists_and_has_a_type(url: str, asset: Asset) -> None:
    assert asset.path.is_file()
    assert asset.path.stat().st_size > 0
    expected = {".js": "text/javascript", ".css": "text/css", ".html": "text/html", ".svg": "image/svg+xml"}
    assert asset.content_type.split(";")[0] == expected.get(asset.path.suffix, "text/plain")


def test_every_file_that_the_page_names_is_served() -> None:
    text = "".join(asset.path.read_text() for asset in FILES.values())
    named = set(re.findall(r"""["'](/(?:static|sdk)/[\w./]+)["']""", text))
    assert named
    assert named <= FILES.keys()


def test_the_page_keeps_a_policy_without_inline_code() -> None:
    page = FILES["/call"].path.read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)", page)
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", page)
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "default-src 'none'" in policy


def test_a_socket_of_another_origin_is_allowed_by_name() -> None:
    assert "connect-src 'self' wss://signal.example.com;" in content_security_policy("wss://signal.example.com")


def test_the_sdk_needs_nothing_else() -> None:
    sdk = FILES["/sdk/parley.js"].path.read_text()
    assert not re.search(r"^\s*import\b|\bfrom \"", sdk, re.MULTILINE)


def test_the_sdk_stays_small() -> None:
    """As it is, with its comments; what a page loads is compressed and a quarter of that."""
    assert FILES["/sdk/parley.js"].path.stat().st_size < 64 * 1024


def test_the_types_name_what_the_sdk_exports() -> None:
    exported = r"export (?:async )?(?:class|const|function) (\w+)"
    sdk = re.findall(exported, FILES["/sdk/parley.js"].path.read_text())
    types = re.findall(exported, FILES["/sdk/parley.d.ts"].path.read_text())
    assert sorted(sdk) == sorted(types)


CONTRACT = [
    "join",
    "hangup",
    "mic",
    "camera",
    "local-video",
    "remote-video",
    "status",
    "timer",
    "amount",
    "warning",
    "sas",
    "quality",
    "continue",
    "summary",
    "summary-total",
    "receipt-link",
    "price",
    "terms",
]


@pytest.mark.parametrize("test_id", CONTRACT)
def test_the_page_has_each_test_id_of_the_contract_once(test_id: str) -> None:
    assert FILES["/call"].path.read_text().count(f'data-testid="{test_id}"') == 1
