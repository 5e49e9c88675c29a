"""The OpenAPI 3.1 document, made from the table of endpoints, the models and the registry of problems."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from gateway import __version__
from gateway.api import examples
from gateway.api.answers import ProblemView
from gateway.api.endpoint import Endpoint
from gateway.api.problems import MEDIA_TYPE, PROBLEMS
from gateway.api.schemas import Query

ABOUT: Final = """\
A call between a client and an expert, carried end-to-end encrypted, metered by the second and paid through Stripe.

Amounts are integers in minor units (`300` is 3.00). Times are RFC 3339 in UTC with milliseconds. Members are always \
present; what is not known yet, or does not apply, is null. Members may be added, so ignore what you do not know; \
unknown fields in requests are refused."""

TAGS: Final = {
    "Sessions": "A session is one call on agreed terms, from the hold on the card to the receipts.",
    "Bookings": "Meetings that are paid before they begin.",
    "Money": "What was used, what it costs, and who pays.",
    "Experts": "Who can be paid, and what they earned.",
    "Events": "What happened, as the webhooks tell it; to catch up, or to do without webhooks.",
    "Webhooks": "Where your events are sent to, and sending them again.",
    "People": "What the two callers' browsers open, without an API key.",
    "Callbacks": "What others call.",
    "Privacy": "What is kept of a person, and its erasure.",
    "Reference": "This document.",
}
_PATH_PARAMETER: Final = {
    "person": "Your id of a client or an expert, `client.id` or `expert.id` of their sessions",
    "id": "The session's id",
    "booking": "The booking's id",
    "secret": "The secret of the link",
    "endpoint": "The webhook endpoint's id",
    "event": "The event's id",
    "expert": "The expert's id, as you gave it",
}


def document(endpoints: Sequence[Endpoint], *, server_url: str) -> dict[str, Any]:
    """The whole document; `server_url` is the gateway's public address."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Parley Gateway",
            "version": __version__,
            "summary": "Paid one-to-one calls",
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": server_url}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": _paths(endpoints),
        "components": {
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`Authorization: Bearer pg_test_…` or `pg_live_…`",
                }
            },
            "schemas": _schemas(endpoints),
        },
    }


def _paths(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    made = examples.answers()
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, made)
    return paths


def _operation(endpoint: Endpoint, made: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.name,
        "tags": [endpoint.tag],
        "summary": endpoint.summary,
        "description": endpoint.description,
        "security": [{"apiKey": []}] if endpoint.scope else [],
        "parameters": [*_path_parameters(endpoint), *_headers(endpoint), *_query_parameters(endpoint.query)],
        "responses": {str(endpoint.status): _success(endpoint, made), **_refusals(endpoint)},
        "x-scope": endpoint.scope,
        "x-problem-codes": list(endpoint.codes()),
    }
    if endpoint.body:
        content: dict[str, Any] = {"schema": _ref(endpoint.body)}
        if endpoint.name in examples.REQUESTS:
            content["example"] = examples.REQUESTS[endpoint.name]
        required = any(field.is_required() for field in endpoint.body.model_fields.values())
        operation["requestBody"] = {"required": required, "content": {"application/json": content}}
    return operation


def _ref(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _path_parameters(endpoint: Endpoint) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string"},
            "description": _PATH_PARAMETER[name],
        }
        for name in re.findall(r"{(\w+)}", endpoint.path)
    ]


def _headers(endpoint: Endpoint) -> list[dict[str, Any]]:
    if endpoint.idempotent == "no":
        return []
    told = "A fresh random value per intended action, the same on each retry of it; kept for 24 hours"
    if endpoint.idempotent == "required unless preview":
        told += ". Required unless `preview=true`"
    return [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": endpoint.idempotent == "required",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "description": told,
        }
    ]


def _query_parameters(query: type[Query] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    schema = query.model_json_schema(ref_template="#/components/schemas/{model}")
    required = schema.get("required", [])
    return [
        {
            "name": name,
            "in": "query",
            "required": name in required,
            "description": member.get("description", ""),
            "schema": _not_null({key: value for key, value in member.items() if key not in ("title", "description")}),
        }
        for name, member in schema["properties"].items()
    ]


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter is left out, never null."""
    variants: list[dict[str, Any]] = [variant for variant in schema.get("anyOf", ()) if variant != {"type": "null"}]
    if len(variants) != 1:
        return schema
    return variants[0] | {key: value for key, value in schema.items() if key != "anyOf" and value is not None}


def _success(endpoint: Endpoint, made: dict[str, Any]) -> dict[str, Any]:
    if isinstance(endpoint.answer, str):
        kind = {"type": "object"} if endpoint.answer == "application/json" else {"type": "string"}
        return {"description": endpoint.summary, "content": {endpoint.answer: {"schema": kind}}}
    content: dict[str, Any] = {"schema": _ref(endpoint.answer)}
    if endpoint.name in made:
        content["example"] = made[endpoint.name]
    return {"description": endpoint.summary, "content": {"application/json": content}}


def _refusals(endpoint: Endpoint) -> dict[str, Any]:
    """One answer per status, its codes in the description."""
    problems = [PROBLEMS[code] for code in endpoint.codes()]
    told: dict[int, list[str]] = {}
    for problem in problems:
        told.setdefault(problem.status, []).append(f"`{problem.code}`: {problem.title}")
    return {
        str(status): {"description": "; ".join(told[status]), "content": {MEDIA_TYPE: {"schema": _ref(ProblemView)}}}
        for status in sorted(told)
    }


def _schemas(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    requests = {endpoint.body for endpoint in endpoints if endpoint.body}
    answers = {endpoint.answer for endpoint in endpoints if isinstance(endpoint.answer, type)} | {ProblemView}
    wanted: list[tuple[type[BaseModel], Any]] = [(model, "validation") for model in requests]
    wanted += [(model, "serialization") for model in answers]
    wanted.sort(key=lambda pair: pair[0].__name__)
    _, made = models_json_schema(wanted, ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = made["$defs"]
    return {name: _tidy(schema) for name, schema in sorted(schemas.items())}


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    """Without the titles that only repeat the members' names."""
    for member in schema.get("properties", {}).values():
        member.pop("title", None)
    return schema
