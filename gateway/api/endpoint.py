"""One endpoint of the API as data, and the one way in which all of them are served.

The order of checks is the same everywhere: key, scope, query, idempotency key, body; only then the use case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from aiohttp import web

from gateway.api.answers import Answer
from gateway.api.auth import ApiKey, Scope, require
from gateway.api.context import CONTEXT, ApiContext
from gateway.api.idempotency import Claim, Replay, check_key, fingerprint
from gateway.api.schemas import Query, Request, parse, read_json, refuse_cards
from gateway.errors import CallerError, InvalidRequest, NotFound
from gateway.ids import new_id

# Ten times the largest order that makes sense; larger only feeds the JSON parser.
BODY_LIMIT: Final = 64 * 1024
SESSION_ID: Final = re.compile(r"ses_[0-9a-z]{1,40}")
ACCOUNT = web.RequestKey("account", str)

Result = Answer | web.StreamResponse
Handler = Callable[["Call"], Awaitable[Result]]
Tag = Literal[
    "Sessions", "Bookings", "Money", "Experts", "Events", "Webhooks", "People", "Privacy", "Reference", "Callbacks"
]


# Members that are somebody's secret; null for keys with the scope `read` alone.
SECRETS: Final = frozenset({"client_secret", "pay_url", "client_url", "expert_url"})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is served and documented. `scope` None: no API key. `problems`: codes beyond what the rest implies."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    name: str
    tag: Tag
    summary: str
    description: str
    handler: Handler
    answer: type[Answer] | str
    scope: Scope | None = None
    body: type[Request] | None = None
    query: type[Query] | None = None
    status: int = 200
    idempotent: Literal["required", "required unless preview", "accepted", "no"] = "no"
    problems: tuple[str, ...] = ()

    def codes(self) -> tuple[str, ...]:
        """Every code that this endpoint may answer with."""
        codes: list[str] = []
        if self.scope:
            codes += ["unauthorized", "insufficient_scope"]
        if self.moves_money:
            codes.append("idempotency_key_required")
        if self.idempotent != "no":
            codes += ["idempotency_key_invalid", "idempotency_key_reused", "idempotency_key_in_use"]
        if self.body:
            codes += ["invalid_json", "missing_field", "unknown_field", "invalid_field", "card_number_refused"]
            codes += ["body_too_large", "unsupported_media_type"]
        if self.scope or self.query:
            codes += ["unknown_parameter", "invalid_parameter", "card_number_refused"]
        if self.query:
            codes.append("missing_parameter")
        if "{id}" in self.path:
            codes += ["session_not_found", "archive_unavailable", "archive_damaged"]
        return tuple(dict.fromkeys((*codes, *self.problems, "store_unavailable", "internal_error")))

    @property
    def moves_money(self) -> bool:
        return self.idempotent.startswith("required")


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way to its use case, as far as it has been checked."""

    request: web.Request
    context: ApiContext
    key: ApiKey | None = None
    body: Any = None
    query: Any = None
    subject: str = ""

    @property
    def account(self) -> str:
        assert self.key is not None, "the endpoint takes no key"
        return self.key.account

    @property
    def livemode(self) -> bool:
        assert self.key is not None, "the endpoint takes no key"
        return self.key.livemode

    @property
    def session(self) -> str:
        """The session id of the path. Raises NotFound when it cannot be one."""
        given = self.request.match_info["id"]
        if not SESSION_ID.fullmatch(given):
            raise NotFound("There is no such session.", code="session_not_found", param="id")
        return given


def register(app: web.Application, endpoints: tuple[Endpoint, ...]) -> None:
    for endpoint in endpoints:
        app.router.add_route(endpoint.method, endpoint.path, _served(endpoint), name=endpoint.name)


def _served(endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def serve(request: web.Request) -> web.StreamResponse:
        context = request.app[CONTEXT]
        key = _authenticate(endpoint, request, context)
        query = _query(endpoint, request)
        idempotency_key = _idempotency_key(endpoint, request, query)
        values = await _read(request) if endpoint.body else {}
        call = Call(
            request,
            context,
            key,
            body=parse(endpoint.body, values) if endpoint.body else None,
            query=query,
            subject=new_id("ses"),
        )
        if idempotency_key is None or key is None:
            return _response(endpoint, await endpoint.handler(call), key)
        mark = fingerprint(request.method, request.path_qs, values)
        return await _once(endpoint, call, key, idempotency_key, mark)

    return serve


def _authenticate(endpoint: Endpoint, request: web.Request, context: ApiContext) -> ApiKey | None:
    if endpoint.scope is None:
        return None
    key = context.keys.authenticate(request.headers.get("Authorization"))
    request[ACCOUNT] = key.account
    require(key, endpoint.scope)
    return key


def _idempotency_key(endpoint: Endpoint, request: web.Request, query: Query | None) -> str | None:
    given = request.headers.get("Idempotency-Key")
    if given is not None and endpoint.idempotent != "no":
        return check_key(given)
    if endpoint.moves_money and not (query is not None and query.previews):
        raise InvalidRequest(
            "This call can move money: send an Idempotency-Key, and the same one when you retry.",
            code="idempotency_key_required",
        )
    return None


async def _read(request: web.Request) -> dict[str, Any]:
    if request.content_length is not None and request.content_length > BODY_LIMIT:
        raise _too_large()
    body = await request.read()
    if len(body) > BODY_LIMIT:
        raise _too_large()
    if body and request.content_type != "application/json":
        raise InvalidRequest("Send the body as `application/json`.", code="unsupported_media_type")
    return read_json(body)


def _too_large() -> InvalidRequest:
    return InvalidRequest(f"The body is larger than {BODY_LIMIT // 1024} KiB.", code="body_too_large")


def _query(endpoint: Endpoint, request: web.Request) -> Query | None:
    if endpoint.scope is None and endpoint.query is None:
        return None  # a page that people open, or a callback: mail programs and proxies add what they like
    values = dict(request.query)
    if len(values) != len(request.query):
        raise InvalidRequest("Each parameter may be given once.", code="invalid_parameter")
    refuse_cards(values)
    return parse(endpoint.query or Query, values, query=True)


async def _once(endpoint: Endpoint, call: Call, key: ApiKey, idempotency_key: str, mark: str) -> web.StreamResponse:
    """Serve under the claim of an idempotency key, or replay what its first request was answered."""
    keys = call.context.idempotency
    owner = f"{key.account}:{'live' if key.livemode else 'test'}"
    claim = await keys.claim(owner, idempotency_key, mark, call.subject)
    if isinstance(claim, Replay):
        return _json(claim.status, claim.body, **{"Idempotent-Replayed": "true"})
    body = (await _claimed(endpoint, call, claim)).model_dump_json().encode()
    await keys.keep(claim, endpoint.status, body)
    return _json(endpoint.status, body)


async def _claimed(endpoint: Endpoint, call: Call, claim: Claim) -> Answer:
    """A refusal frees the key: nothing was done. After anything else, and after a take-over, nobody can say so."""
    keys = call.context.idempotency
    try:
        answer = await endpoint.handler(replace(call, subject=claim.subject))
    except CallerError:
        await (keys.unlock(claim) if claim.taken_over else keys.forget(claim))
        raise
    except Exception:
        await keys.unlock(claim)
        raise
    assert isinstance(answer, Answer), "an endpoint with an idempotency key answers in JSON"
    return answer


def _response(endpoint: Endpoint, result: Result, key: ApiKey | None) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    if key is not None and key.only_reads:
        return _json(endpoint.status, json.dumps(_without_secrets(result.model_dump(mode="json"))).encode())
    return _json(endpoint.status, result.model_dump_json().encode())


def _without_secrets(value: Any) -> Any:
    """With a link a call is entered or a card is charged, which a key that only reads may not do."""
    if isinstance(value, list):
        return [_without_secrets(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {name: None if name in SECRETS else _without_secrets(each) for name, each in value.items()}


def _json(status: int, body: bytes, **headers: str) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)
