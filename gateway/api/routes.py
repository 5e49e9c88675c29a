"""The public API: the table of endpoints, their handlers, and the application that serves them.

A handler says which use case answers, and nothing else: checks are `endpoint`'s, rules are `terms`', shapes `views`'.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from aiohttp import web

from gateway.api import answers, experts, middleware, noreceipt, openapi, page, schemas, terms, views
from gateway.api.booking_routes import BOOKING_ENDPOINTS
from gateway.api.context import CONTEXT, ApiContext, Docs, WebhookDesk
from gateway.api.endpoint import Call, Endpoint, register
from gateway.api.people_routes import PEOPLE_ENDPOINTS
from gateway.errors import InvalidRequest, NotFound
from gateway.session import Role
from gateway.sessions.refunds import NewRefund
from gateway.web import FILES
from gateway.web import HEADERS as WEB_HEADERS

# Stripe's events carry whole objects; its largest are far below this. Our own bodies are held to 64 KiB.
STRIPE_BODY_LIMIT: Final = 1024 * 1024
# A receipt is a mail's HTML, styled in place; it has no script at all.
RECEIPT_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


async def create(call: Call) -> answers.Session:
    order = terms.order(call.body, call.context.limits, now=call.context.clock.wall_ms())
    return views.created(
        await call.context.sessions.create(order, account=call.account, livemode=call.livemode, session_id=call.subject)
    )


async def retrieve(call: Call) -> answers.Session:
    return views.session(await _owned(call))


async def find(call: Call) -> answers.SessionList:
    query: schemas.SessionFilter = call.query
    page, has_more = await call.context.sessions.list(call.account, livemode=call.livemode, **query.model_dump())
    return views.sessions(page, has_more, call.context.complete_since)


async def end(call: Call) -> answers.Session:
    await _owned(call)
    return views.session(await call.context.sessions.end(call.account, call.session, call.body.reason))


async def tokens(call: Call) -> answers.EntryView:
    await _owned(call)
    role: Role = call.body.role
    return views.entry(call.session, role, await call.context.sessions.tokens_for(call.account, call.session, role))


async def usage(call: Call) -> answers.Usage:
    docs = await _owned(call)
    return views.usage(docs, await call.context.sessions.usage(call.account, call.session))


async def receipts(call: Call) -> answers.ReceiptList:
    return views.receipts(await _owned(call), call.context.public_url)


async def pay(call: Call) -> answers.Session:
    """The order bears the request's subject, so that a repeated request finds its own and tries no card again."""
    await _owned(call)
    docs = await call.context.sessions.pay(call.account, call.session, call.body.payment_method, request=call.subject)
    return views.session(docs)


async def refund(call: Call) -> answers.RefundView:
    """The refund takes its id from the request's subject, so that a repeated request finds its own order."""
    await _owned(call)
    ident = call.subject.replace("ses_", "ref_", 1)
    new = NewRefund(ident, call.body.amount, call.body.reason, call.body.charge_to)
    docs, order = await call.context.sessions.refund(call.account, call.session, new)
    return views.refund(docs, order)


async def waive(call: Call) -> answers.Session:
    await _owned(call)
    return views.session(await call.context.sessions.waive(call.account, call.session))


async def events_of_session(call: Call) -> answers.EventList:
    query: schemas.EventPage = call.query
    await _owned(call)
    return await _events(call, call.session, query.after, query.limit)


async def events(call: Call) -> answers.EventList:
    query: schemas.EventFilter = call.query
    if query.session is None:
        since = 0 if query.since is None else int(query.since.timestamp() * 1000)
        page, more = await _desk(call).events(
            call.account, call.livemode, since=since, after=query.starting_after or "", limit=query.limit
        )
        return views.events(page, more, call.livemode, call.context.complete_since)
    await _owned(call, query.session)
    return await _events(call, query.session, query.after, query.limit)


async def _events(call: Call, session: str, after: int, limit: int) -> answers.EventList:
    found = await call.context.sessions.events(call.account, session, after)
    return views.events(found[:limit], len(found) > limit, call.livemode)


async def resend(call: Call) -> answers.Resent:
    event = call.request.match_info["event"]
    return answers.Resent(deliveries=await _desk(call).resend(call.account, call.livemode, event, call.body.endpoint))


async def resend_since(call: Call) -> answers.Resent:
    since, endpoint = int(call.body.since.timestamp() * 1000), call.request.match_info["endpoint"]
    return answers.Resent(deliveries=await _desk(call).resend_since(call.account, since, endpoint))


async def webhook_endpoints(call: Call) -> answers.WebhookEndpointList:
    return answers.WebhookEndpointList(
        data=[views.endpoint(found) for found in await _desk(call).endpoints(call.account)]
    )


async def add_webhook_endpoint(call: Call) -> answers.WebhookEndpoint:
    return views.endpoint(await _desk(call).add(call.account, call.body.url, call.body.types), secret=True)


async def remove_webhook_endpoint(call: Call) -> answers.Deleted:
    return answers.Deleted(id=(await _desk(call).remove(call.account, call.request.match_info["endpoint"])).id)


async def rotate_webhook_secret(call: Call) -> answers.WebhookEndpoint:
    return views.endpoint(await _desk(call).rotate(call.account, call.request.match_info["endpoint"]), secret=True)


async def enable_webhook_endpoint(call: Call) -> answers.WebhookEndpoint:
    return views.endpoint(await _desk(call).enable(call.account, call.request.match_info["endpoint"]))


def _desk(call: Call) -> WebhookDesk:
    if call.context.webhooks is None:
        raise NotFound("This gateway sends no webhooks.")
    return call.context.webhooks


async def enter(call: Call) -> answers.Entrance:
    return answers.Entrance(**await call.context.sessions.enter(call.body.secret))


async def stripe_events(call: Call) -> answers.Received:
    """The signature covers the bytes, so they go on as they came."""
    if call.context.stripe_events is None:
        raise NotFound("This gateway takes no events of Stripe.")
    signature = call.request.headers.get("Stripe-Signature")
    if not signature:
        raise InvalidRequest("The header Stripe-Signature is missing.", code="bad_signature")
    await call.context.stripe_events(await call.request.read(), signature)
    return answers.Received()


async def receipt_page(call: Call) -> web.Response:
    if call.context.receipt_page is None:
        raise NotFound("There is no such receipt.")
    asked = call.request.headers
    try:
        html, status = await call.context.receipt_page(call.request.match_info["secret"]), 200
    except NotFound:
        if "json" in asked.get("Accept", ""):
            raise
        html, status = noreceipt.page(asked.get("Accept-Language", "")), 404
    headers = {
        "Content-Security-Policy": RECEIPT_POLICY,
        "Cache-Control": "private, no-store",
        "X-Robots-Tag": "noindex",
    }
    return web.Response(text=html, status=status, content_type="text/html", headers=headers)


async def _owned(call: Call, session: str | None = None) -> Docs:
    """The session, if it is the account's and of the key's mode; otherwise it looks absent."""
    docs = await call.context.sessions.get(call.account, session or call.session)
    if not _same_mode(call, docs):
        raise NotFound("There is no such session.", code="session_not_found", param="id")
    return docs


def _same_mode(call: Call, docs: Docs) -> bool:
    return docs.session["livemode"] is call.livemode


async def openapi_document(call: Call) -> web.Response:
    return web.json_response(_document(call.context.public_url), headers={"Cache-Control": "no-cache"})


async def openapi_page(call: Call) -> web.Response:
    return web.Response(text=_page(call.context.public_url), content_type="text/html")


@cache
def _document(public_url: str) -> dict[str, Any]:
    return openapi.document(ENDPOINTS, server_url=public_url)


@cache
def _page(public_url: str) -> str:
    return page.render(_document(public_url))


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        "POST",
        "/v1/sessions",
        "createSession",
        "Sessions",
        "Create a session",
        "Checks the rules, opens the session and holds the card for the most that it may cost: limit less free "
        "minutes, times the rate. Waits up to ten seconds for the card's answer. A declined card is no refusal: the "
        "answer is 201 with `payment.status` `failed`, and another card can be tried. The answer carries a link and "
        "a join token for each side; send the links to the two people, and to nobody else.",
        create,
        answers.Session,
        scope="sessions",
        body=schemas.CreateSession,
        status=201,
        idempotent="required",
        problems=(
            "unknown_currency",
            "rate_out_of_range",
            "rate_required",
            "booked_through_bookings",
            "booked_minutes_invalid",
            "pro_bono_too_long",
            "expert_not_eligible",
            "expert_not_payable",
            "expert_busy",
            "expert_offline",
            "payment_method_required",
            "stripe_customer_required",
            "hold_not_possible",
            "expires_at_out_of_range",
            "reference_in_use",
            "stripe_unavailable",
        ),
    ),
    Endpoint(
        "GET",
        "/v1/sessions",
        "listSessions",
        "Sessions",
        "List sessions",
        "Newest first, in pages: pass the last id as `starting_after` while `has_more` is true.",
        find,
        answers.SessionList,
        scope="read",
        query=schemas.SessionFilter,
        problems=("session_not_found",),
    ),
    Endpoint(
        "GET",
        "/v1/sessions/{id}",
        "getSession",
        "Sessions",
        "Read a session",
        "How it stands now. `status` goes created → ringing → ready → live ⇄ interrupted → ended → finalized; why it "
        "ended is `end_reason` alone. The figures of the bill are null until it is finalized.",
        retrieve,
        answers.Session,
        scope="read",
    ),
    Endpoint(
        "POST",
        "/v1/sessions/{id}/end",
        "endSession",
        "Sessions",
        "End a session",
        "Ends it for both, at once; nothing is billed after this instant. Ending an ended session changes nothing.",
        end,
        answers.Session,
        scope="sessions",
        body=schemas.EndSession,
        idempotent="accepted",
    ),
    Endpoint(
        "POST",
        "/v1/sessions/{id}/tokens",
        "createToken",
        "Sessions",
        "Get a fresh join token",
        "For an app that joins by itself: the token is good for one first connect within ten minutes. Reconnects do "
        "not need it.",
        tokens,
        answers.EntryView,
        scope="sessions",
        body=schemas.JoinToken,
        status=201,
        idempotent="accepted",
        problems=("session_ended",),
    ),
    *BOOKING_ENDPOINTS,
    *PEOPLE_ENDPOINTS,
    Endpoint(
        "GET",
        "/v1/sessions/{id}/usage",
        "getUsage",
        "Money",
        "Read the usage",
        "The interval ledger as it is stored, the union of it, the free part, and the bill with its arithmetic. "
        "Before the session is finalized it tells what the bill would be now.",
        usage,
        answers.Usage,
        scope="read",
    ),
    Endpoint(
        "GET",
        "/v1/sessions/{id}/receipts",
        "listReceipts",
        "Money",
        "List the receipts",
        "Both sides' receipts: numbers, links and how far the mails have come; and the corrections that followed on "
        "refunds, lost disputes and late payments, each numbered in the same series. Empty until they are issued.",
        receipts,
        answers.ReceiptList,
        scope="read",
    ),
    Endpoint(
        "POST",
        "/v1/sessions/{id}/payment",
        "payWithAnotherCard",
        "Money",
        "Try another card",
        "After `failed` or an abandoned `action_required`. The older hold is canceled first, so at most one lives. "
        "When the bill is `due`, because its hold was lost, this card is charged at once.",
        pay,
        answers.Session,
        scope="money",
        body=schemas.Payment,
        idempotent="required",
        problems=("session_state", "payment_state", "expert_not_payable", "stripe_unavailable"),
    ),
    Endpoint(
        "POST",
        "/v1/sessions/{id}/refunds",
        "createRefund",
        "Money",
        "Refund the client",
        "Gives back `amount` of what was captured, and without `amount` all that is left of it; any number of times. "
        "The shares become those of the remaining total, and what was transferred above them is taken back, unless "
        "`charge_to` is `platform`. What an expert's balance does not allow is taken from that expert's next "
        "transfers. Waits up to ten seconds for Stripe's answer.",
        refund,
        answers.RefundView,
        scope="money",
        body=schemas.Refund,
        status=201,
        idempotent="required",
        problems=("payment_state", "refund_too_large"),
    ),
    Endpoint(
        "POST",
        "/v1/sessions/{id}/waive",
        "waiveFee",
        "Money",
        "Waive the fee",
        "Pro bono after all: the hold is released at once, and both receipts say so. Possible until the charge is sent "
        "to Stripe, also for a bill that is due; before the session is live it then lasts at most 15 minutes. A booked "
        "meeting is paid already: its fee is given back, and that can be done until its bill is final.",
        waive,
        answers.Session,
        scope="money",
        body=schemas.Waive,
        idempotent="required",
        problems=("session_state", "payment_state"),
    ),
    *experts.ENDPOINTS,
    Endpoint(
        "GET",
        "/v1/sessions/{id}/events",
        "listSessionEvents",
        "Events",
        "List a session's events",
        "What the webhooks told, in order. `sequence` counts up from 1 without a gap; pass the last one as `after`.",
        events_of_session,
        answers.EventList,
        scope="read",
        query=schemas.EventPage,
    ),
    Endpoint(
        "GET",
        "/v1/events",
        "listEvents",
        "Events",
        "List events",
        "For consumers that catch up after an outage: all events of the account, oldest first, from `since` on, in "
        "pages by `starting_after`; or those of one `session`, in pages by `after`. Within a session `sequence` tells "
        "the order; between sessions there is none but that of the ids.",
        events,
        answers.EventList,
        scope="read",
        query=schemas.EventFilter,
        problems=("session_not_found",),
    ),
    Endpoint(
        "POST",
        "/v1/events/{event}/resend",
        "resendEvent",
        "Webhooks",
        "Send an event again",
        "To one endpoint, or to all that want its type; ten more attempts, also where it had arrived. The receiver "
        "tells a repeated event by its id.",
        resend,
        answers.Resent,
        scope="sessions",
        body=schemas.Resend,
        problems=("event_not_found", "endpoint_not_found", "endpoint_disabled"),
    ),
    Endpoint(
        "GET",
        "/v1/webhook_endpoints",
        "listWebhookEndpoints",
        "Webhooks",
        "List the webhook endpoints",
        "The account's own, and those of the gateway's configuration. Secrets are not told.",
        webhook_endpoints,
        answers.WebhookEndpointList,
        scope="read",
    ),
    Endpoint(
        "POST",
        "/v1/webhook_endpoints",
        "createWebhookEndpoint",
        "Webhooks",
        "Add a webhook endpoint",
        "It gets the account's events from now on, signed as Standard Webhooks says with the `secret` of this answer, "
        "which is not told again.",
        add_webhook_endpoint,
        answers.WebhookEndpoint,
        scope="sessions",
        body=schemas.NewEndpoint,
        status=201,
    ),
    Endpoint(
        "DELETE",
        "/v1/webhook_endpoints/{endpoint}",
        "deleteWebhookEndpoint",
        "Webhooks",
        "Remove a webhook endpoint",
        "It gets nothing more; what was still to be delivered becomes a dead letter.",
        remove_webhook_endpoint,
        answers.Deleted,
        scope="sessions",
        problems=("endpoint_not_found", "endpoint_configured"),
    ),
    Endpoint(
        "POST",
        "/v1/webhook_endpoints/{endpoint}/rotate",
        "rotateWebhookSecret",
        "Webhooks",
        "Rotate a signing secret",
        "The new secret is in the answer. For 24 hours each event carries two signatures, one by either secret.",
        rotate_webhook_secret,
        answers.WebhookEndpoint,
        scope="sessions",
        body=schemas.Rotate,
        problems=("endpoint_not_found", "endpoint_configured"),
    ),
    Endpoint(
        "POST",
        "/v1/webhook_endpoints/{endpoint}/enable",
        "enableWebhookEndpoint",
        "Webhooks",
        "Enable a webhook endpoint again",
        "After it was disabled by its own answer 410. It gets the events from now on; those between come by resending "
        "all since a time.",
        enable_webhook_endpoint,
        answers.WebhookEndpoint,
        scope="sessions",
        body=schemas.Enable,
        problems=("endpoint_not_found",),
    ),
    Endpoint(
        "POST",
        "/v1/webhook_endpoints/{endpoint}/resend",
        "resendEventsSince",
        "Webhooks",
        "Send all events since a time again",
        "For a receiver that lost what it had: everything made at `since` or later, once more to this endpoint.",
        resend_since,
        answers.Resent,
        scope="sessions",
        body=schemas.ResendSince,
        problems=("endpoint_not_found", "endpoint_disabled"),
    ),
    Endpoint(
        "POST",
        "/v1/enter",
        "enter",
        "People",
        "Exchange a link's secret",
        "What the call page does with the secret in its link (`/call#SECRET`): it learns price, payment and peer, and "
        "gets a join token. No API key; open to every origin, so that a page or app of your own can do the same.",
        enter,
        answers.Entrance,
        body=schemas.Enter,
        problems=("link_invalid", "link_expired", "session_ended"),
    ),
    Endpoint(
        "GET",
        "/r/{secret}",
        "readReceipt",
        "People",
        "Open a receipt",
        "The page behind a receipt's link, to read and print. Whoever has the link can read it. A link that "
        "opens nothing is answered with a page too, unless `Accept` asks for JSON.",
        receipt_page,
        "text/html",
        problems=("receipt_not_found",),
    ),
    Endpoint(
        "POST",
        "/v1/stripe/events",
        "receiveStripeEvent",
        "Callbacks",
        "Stripe's events come in here",
        "Register this address at Stripe. The body must carry Stripe's signature.",
        stripe_events,
        answers.Received,
        problems=("bad_signature", "invalid_request", "body_too_large"),
    ),
    Endpoint(
        "GET",
        "/v1/openapi.json",
        "getOpenApi",
        "Reference",
        "This API as OpenAPI 3.1",
        "Generated from the same table and models that serve it.",
        openapi_document,
        "application/json",
    ),
    Endpoint(
        "GET",
        "/v1/docs",
        "readDocs",
        "Reference",
        "This API as a page",
        "The same, to read.",
        openapi_page,
        "text/html",
    ),
)


def public_app(context: ApiContext) -> web.Application:
    """The public application, without /v1/signal, which its owner adds to the router."""
    app = web.Application(
        middlewares=[middleware.observe, middleware.answer_problems], client_max_size=STRIPE_BODY_LIMIT
    )
    app[CONTEXT] = context
    app.on_response_prepare.append(middleware.secure)
    register(app, ENDPOINTS)
    page.register(app)
    app.router.add_route("OPTIONS", "/v1/enter", middleware.preflight)
    _serve_web(app)
    return app


def _serve_web(app: web.Application) -> None:
    """The call page and the SDK, file by file: what is not listed does not exist."""
    for path, asset in FILES.items():
        headers = {**WEB_HEADERS, "Content-Type": asset.content_type}

        async def serve(
            _: web.Request, file: str = str(asset.path), headers: dict[str, str] = headers
        ) -> web.FileResponse:
            return web.FileResponse(file, headers=headers)

        app.router.add_get(path, serve)
