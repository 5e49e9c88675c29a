from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from gateway.api import examples, openapi, reference
from gateway.api.context import ApiContext
from gateway.api.endpoint import Endpoint
from gateway.api.problems import PROBLEMS
from gateway.api.routes import ENDPOINTS, public_app
from gateway.api.schemas import parse

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = openapi.document(ENDPOINTS, server_url="https://gateway.example")
OPERATIONS = [(path, method, op) for path, methods in DOCUMENT["paths"].items() for method, op in methods.items()]
IDS = [operation["operationId"] for _, _, operation in OPERATIONS]


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "$ref")
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def resolved(schema: dict[str, Any]) -> Draft202012Validator:
    return Draft202012Validator({**schema, "components": DOCUMENT["components"]})


def test_every_schema_is_valid_json_schema_2020_12() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere() -> None:
    names = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(references(DOCUMENT)) <= names


def test_the_document_has_what_openapi_3_1_requires() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(DOCUMENT["info"])
    assert len(set(IDS)) == len(IDS)
    tags = {tag["name"] for tag in DOCUMENT["tags"]}
    for path, method, operation in OPERATIONS:
        assert path.startswith("/")
        assert method in ("get", "post", "delete")
        assert set(operation["tags"]) <= tags
        assert all(
            re.fullmatch(r"[1-5]\d\d", status) and response["description"]
            for status, response in operation["responses"].items()
        )
        named = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", path))
        assert all(p["required"] for p in operation["parameters"] if p["in"] == "path")
        assert all("schema" in p for p in operation["parameters"])


def test_every_route_of_the_api_is_in_it(context: ApiContext) -> None:
    served = {
        (route.method.lower(), route.resource.canonical)
        for route in public_app(context).router.routes()
        if route.resource is not None and route.method in ("GET", "POST", "DELETE")
    }
    documented = {(method, path) for path, method, _ in OPERATIONS}
    rest = {path for method, path in served - documented}
    assert documented <= served
    assert all(path == "/call" or path.startswith(("/static/", "/sdk/", "/v1/docs/")) for path in rest)


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS, ids=IDS)
def test_examples_fit_their_schemas(path: str, method: str, operation: dict[str, Any]) -> None:
    contents = [response["content"] for response in operation["responses"].values()]
    contents += [operation["requestBody"]["content"]] if "requestBody" in operation else []
    for content in contents:
        for media in content.values():
            if "example" in media:
                resolved(media["schema"]).validate(media["example"])


@pytest.mark.parametrize("endpoint", [e for e in ENDPOINTS if e.body], ids=lambda e: e.name)
def test_example_requests_are_taken_by_the_models(endpoint: Endpoint) -> None:
    assert endpoint.body is not None
    parse(endpoint.body, examples.REQUESTS[endpoint.name])


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)
def test_every_code_of_an_endpoint_is_registered(endpoint: Endpoint) -> None:
    assert set(endpoint.codes()) <= set(PROBLEMS)


def test_contract_what_moves_money_says_so() -> None:
    required = {e.path for e in ENDPOINTS if e.moves_money}
    assert required == {
        "/v1/sessions", "/v1/sessions/{id}/payment", "/v1/sessions/{id}/refunds", "/v1/sessions/{id}/waive",
        "/v1/bookings", "/v1/bookings/{booking}/payment", "/v1/bookings/{booking}/cancel",
    }  # fmt: skip


def test_answers_may_grow_and_requests_may_not() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert schemas["CreateSession"]["additionalProperties"] is False
    assert "additionalProperties" not in schemas["Session"]


def test_the_document_in_docs_is_the_one_that_is_served() -> None:
    kept = json.loads((DOCS / "openapi.json").read_text(encoding="utf-8"))
    assert kept == json.loads(reference.openapi_json())


def test_the_page_in_docs_lists_every_call_and_every_problem() -> None:
    page = (DOCS / "api.md").read_text(encoding="utf-8")
    assert page == reference.woven(page)
    assert all(f"`{e.method} {e.path}`" in page for e in ENDPOINTS)
    assert all(f"| `{code}` |" in page for code in PROBLEMS)
