"""The pay page's application, on an origin of its own: there Stripe's script runs, and nothing of the call does.

The card goes from Stripe's frame to Stripe (PCI DSS, SAQ A); we take the id under which it is kept there. The page's
secret stands in the link's fragment, so that it is in no log, and goes into the body of what the page asks.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

from aiohttp import web

from gateway.api import answers, middleware, schemas
from gateway.api.context import CONTEXT, ApiContext, PayPage
from gateway.api.endpoint import Call, Endpoint, register
from gateway.errors import NotFound
from gateway.web import PAY_FILES

# docs.stripe.com/security/guide#content-security-policy
STRIPE_FRAMES: Final = "https://*.js.stripe.com https://js.stripe.com https://hooks.stripe.com"
STRIPE_SCRIPTS: Final = "https://*.js.stripe.com https://js.stripe.com"
STRIPE_API: Final = "https://api.stripe.com"


def policy(script: str) -> str:
    """The page's policy; `script` is where its card form comes from: Stripe's own, or a sandbox that stands in."""
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(script))
    scripts, frames, api = (
        (STRIPE_SCRIPTS, STRIPE_FRAMES, STRIPE_API) if origin.endswith(".stripe.com") else (origin, origin, origin)
    )
    return (
        f"default-src 'none'; script-src 'self' {scripts}; frame-src {frames}; connect-src 'self' {api}; "
        "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def look(call: Call) -> answers.Asked:
    page = _page(call)
    return _answer(page, await page.desk.open(call.body.token))


async def pay(call: Call) -> answers.Asked:
    page, body = _page(call), call.body
    return _answer(page, await page.desk.pay(body.token, body.payment_method, body.attempt))


def _page(call: Call) -> PayPage:
    if call.context.pay is None:
        raise NotFound("This gateway has no pay page.")
    return call.context.pay


def _answer(page: PayPage, asked: dict[str, Any]) -> answers.Asked:
    receipt = asked["receipt"] and page.public_url + asked["receipt"]
    key = page.keys.get(asked["platform"])
    form = answers.CardForm(script=page.script, key=key) if key else None
    shown = {name: value for name, value in asked.items() if name != "platform"}
    return answers.Asked(**{**shown, "receipt": receipt, "form": form})


ENDPOINTS: Final = (
    Endpoint(
        "POST", "/pay/open", "openPayPage", "People", "See what is asked",
        "What the pay page shows of its session.", look, answers.Asked,
        body=schemas.OpenPay, problems=("link_invalid", "link_expired"),
    ),
    Endpoint(
        "POST", "/pay/card", "payWithCard", "People", "Try a card",
        "One attempt with a card that Stripe's form has taken.", pay, answers.Asked, body=schemas.PayWith,
        problems=(
            "link_invalid", "link_expired", "payment_state", "session_state", "too_many_cards", "expert_not_payable",
            "stripe_unavailable",
        ),
    ),
)  # fmt: skip


def pay_app(context: ApiContext) -> web.Application:
    """The application of the pay page's origin. `context.pay` must be there."""
    assert context.pay is not None
    app = web.Application(middlewares=[middleware.observe, middleware.answer_problems])
    app[CONTEXT] = context
    app.on_response_prepare.append(middleware.secure)
    register(app, ENDPOINTS)
    headers = {"Content-Security-Policy": policy(context.pay.script), "Referrer-Policy": "no-referrer"}
    for path, asset in PAY_FILES.items():
        kind = headers | {"Content-Type": asset.content_type}

        async def serve(_: web.Request, file: str = str(asset.path), kind: dict[str, str] = kind) -> web.FileResponse:
            return web.FileResponse(file, headers=kind)

        app.router.add_get(path, serve)
    return app
