"""Around every request: its id, its line in the log, its metrics, errors as problem+json, security headers, CORS.

The log line holds what is safe for years: the route's template, never the path's secrets, a query, a body or an
address (R22).
"""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Final

import structlog
from aiohttp import web
from prometheus_client import Counter, Histogram

from gateway.api.cardnumbers import looks_like_card
from gateway.api.context import CONTEXT
from gateway.api.endpoint import ACCOUNT
from gateway.api.problems import MEDIA_TYPE, describe
from gateway.errors import Bug, GatewayError, InvalidRequest, NotFound
from gateway.ids import new_id

log = structlog.get_logger(__name__)

REQUESTS = Counter("gateway_http_requests_total", "Requests answered", ["method", "route", "status"])
DURATION = Histogram(
    "gateway_http_request_duration_seconds",
    "From the request's head to the answer's end, WebSockets left out",
    ["method", "route"],
    # Creating a session waits up to 10 s for the card; everything else should stay in the first buckets.
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
)

REQUEST_ID = web.RequestKey("request_id", str)
STARTED = web.RequestKey("started", bool)

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Wide enough for UUIDs and trace ids; narrow enough to be safe in a log and a header.
_SANE_ID: Final = re.compile(r"[A-Za-z0-9._-]{8,64}")
# What other origins may read: the door of the call page (for a page of the marketplace's own) and the SDK's files.
OPEN_TO_ALL: Final = ("/v1/enter", "/sdk/")

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), speaker-selection=(self), geolocation=(), payment=()",
}
DATA_POLICY: Final = "default-src 'none'; frame-ancestors 'none'"
PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "font-src 'self'; connect-src 'self' ws: wss:; worker-src 'self' blob:; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
HSTS: Final = "max-age=31536000"

Next = Callable[[web.Request], Awaitable[web.StreamResponse]]


@web.middleware
async def observe(request: web.Request, handler: Next) -> web.StreamResponse:
    """Name the request, and tell of it once it is answered."""
    request[REQUEST_ID] = request_id(request.headers.get("X-Request-Id"))
    began, status = perf_counter(), 500
    try:
        with structlog.contextvars.bound_contextvars(request_id=request[REQUEST_ID]):
            response = await handler(request)
            status = response.status
            return response
    except (asyncio.CancelledError, ConnectionResetError):
        status = 499  # as nginx says it: the client went away
        raise
    finally:
        _tell(request, status, perf_counter() - began)


def request_id(inbound: str | None) -> str:
    """The caller's own id if it is harmless, else a new one."""
    if inbound and _SANE_ID.fullmatch(inbound) and not looks_like_card(inbound):
        return inbound
    return new_id("req")


def route_of(request: web.Request) -> str:
    """The route's template: bounded in number, and without the secrets that paths carry."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unmatched"


def _tell(request: web.Request, status: int, seconds: float) -> None:
    method = request.method if request.method in METHODS else "other"
    route = route_of(request)
    REQUESTS.labels(method, route, str(status)).inc()
    if status != 101:
        DURATION.labels(method, route).observe(seconds)
    log.info(
        "request",
        request_id=request[REQUEST_ID],
        method=method,
        route=route,
        status=status,
        duration_ms=round(seconds * 1000, 1),
        account=request.get(ACCOUNT),
    )


@web.middleware
async def answer_problems(request: web.Request, handler: Next) -> web.StreamResponse:
    """Every error as application/problem+json (RFC 9457)."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _problem(request, _translated(error), _allow(error))
    except GatewayError as error:
        if isinstance(error, Bug) or error.status == 500:
            _failed(error)
        return _problem(request, error)
    except ConnectionResetError:
        raise
    except Exception as error:
        if request.get(STARTED):
            raise
        _failed(error)
        return _problem(request, Bug("unexpected"))


def _failed(error: Exception) -> None:
    """The traceback as text: renderers that add the frames' variables would add tokens and e-mail addresses (R22)."""
    log.error("request_failed", error=type(error).__name__, exception="".join(traceback.format_exception(error)))


def _translated(error: web.HTTPException) -> GatewayError:
    """aiohttp's own refusals in our words."""
    if error.status in (403, 404):
        return NotFound("There is nothing at this path.")
    if error.status == 405:
        return InvalidRequest("This path does not take this method.", code="method_not_allowed")
    if error.status == 413:
        return InvalidRequest("The body is too large.", code="body_too_large")
    return InvalidRequest(error.reason) if error.status < 500 else Bug(error.reason)


def _allow(error: web.HTTPException) -> dict[str, str]:
    return {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}


def _problem(request: web.Request, error: GatewayError, headers: dict[str, str] | None = None) -> web.Response:
    document = describe(
        error,
        instance=request.path if route_of(request) != "/r/{secret}" else "/r/",
        request_id=request[REQUEST_ID],
        docs_url=request.app[CONTEXT].docs_url,
    )
    response = web.json_response(document, status=document["status"], content_type=MEDIA_TYPE, headers=headers)
    if error.code == "unauthorized":
        response.headers["WWW-Authenticate"] = 'Bearer realm="Parley Gateway"'
    if "retry_after" in error.extra:
        response.headers["Retry-After"] = str(error.extra["retry_after"])
    return response


async def secure(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every answer, also of files and errors; what a handler has set itself stays."""
    request[STARTED] = True
    headers = response.headers
    page = response.content_type == "text/html"
    headers.setdefault("Content-Security-Policy", PAGE_POLICY if page else DATA_POLICY)
    headers.setdefault("Cache-Control", "no-store" if response.content_type.endswith("json") else "no-cache")
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    headers["Server"] = "parley-gateway"
    headers["X-Request-Id"] = request.get(REQUEST_ID, "")
    if request.app[CONTEXT].public_url.startswith("https:"):
        headers["Strict-Transport-Security"] = HSTS
    if request.path.startswith(OPEN_TO_ALL):
        headers["Access-Control-Allow-Origin"] = "*"
        headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    else:
        headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")


async def preflight(request: web.Request) -> web.Response:
    """The CORS preflight of /v1/enter: any origin may exchange a link's secret, which is all the authority there is."""
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": "Content-Type",
            "Access-Control-Max-Age": "600",
        },
    )
