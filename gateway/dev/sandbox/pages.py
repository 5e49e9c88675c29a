"""The page where a customer approves or fails 3D Secure, as Stripe's own test page lets one do."""

from __future__ import annotations

from html import escape
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from gateway.dev.sandbox.currencies import shown
from gateway.dev.sandbox.store import Doc

_FRAME = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>3D Secure test page</title><style>
body{{font:16px/1.5 system-ui,sans-serif;background:#f4f5f9;color:#1c2030;display:grid;place-items:center;
min-height:100vh;margin:0}}
main{{background:#fff;padding:2rem 2.25rem;border-radius:16px;box-shadow:0 8px 32px #1c203022;
max-width:24rem;margin:1rem}}
h1{{font-size:1.2rem;margin:0 0 .5rem}} p{{margin:.25rem 0 1.25rem;color:#4a5168}}
form{{display:flex;gap:.75rem;flex-wrap:wrap}}
button{{font:inherit;font-weight:600;padding:.65rem 1.1rem;border-radius:10px;border:1px solid #c9cede;
background:#fff;cursor:pointer}}
button[value=approve]{{background:#3d4cd8;border-color:#3d4cd8;color:#fff}} small{{color:#6b7290}}
</style><main>{body}</main></html>"""


def challenge(intent: Doc) -> str:
    """What is to be approved, with two buttons."""
    amount = escape(shown(intent["amount"], intent["currency"]))
    body = (
        f"<h1>3D Secure 2 test page</h1><p>Your bank asks: may this payment of <strong>{amount}</strong> go "
        "through?</p>"
        '<form method="post"><button name="verdict" value="approve" data-testid="3ds-approve">Complete</button>'
        '<button name="verdict" value="fail" data-testid="3ds-fail">Fail</button></form>'
        f"<p><small>{escape(intent['id'])} · no money moves here</small></p>"
    )
    return _FRAME.format(body=body)


def done(intent: Doc) -> str:
    """For a payment that has nothing to approve (any more) and nowhere to go back to."""
    return _FRAME.format(
        body=f"<h1>Nothing to approve</h1><p>The payment is <strong>{escape(intent['status'])}</strong>.</p>"
    )


def way_back(intent: Doc) -> str | None:
    """The return_url with what Stripe adds (docs.stripe.com/payments/payment-intents/verifying-status)."""
    target: str | None = intent.get("_", {}).get("return_url")
    if not target:
        return None
    failed = intent["status"] in ("requires_payment_method", "canceled")
    added = {
        "payment_intent": intent["id"],
        "payment_intent_client_secret": intent["client_secret"],
        "redirect_status": "failed" if failed else "succeeded",
        "source_type": "card",
    }
    parts = urlsplit(target)
    query = urlencode([*parse_qsl(parts.query), *added.items()])
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, parts.fragment))
