"""Webhook endpoints as Stripe's API keeps them, and which of them want an event."""

from __future__ import annotations

from gateway.dev.sandbox.refusals import Refusal
from gateway.dev.sandbox.store import Doc
from gateway.dev.sandbox.turn import API_VERSION, Turn, merged_metadata

# The endpoint that the sandbox was started with; its secret is told to the sandbox, not by it.
CONFIGURED = "we_configured"


def create(turn: Turn, p: Doc) -> Doc:
    """The answer is the only one that shows the secret (docs.stripe.com/api/webhook_endpoints/create)."""
    if not p["url"].startswith(("http://", "https://")):
        raise Refusal(
            "Invalid URL: An explicit scheme (such as https) must be provided.",
            code="url_invalid",
            param="url",
            saved=False,
        )
    secret = "whsec_" + turn.new_id("x").removeprefix("x_")
    endpoint: Doc = {
        "id": turn.new_id("we"), "object": "webhook_endpoint", "api_version": p.get("api_version"), "application": None,
        "created": turn.now, "description": p.get("description"), "enabled_events": p["enabled_events"],
        "livemode": False,
        "metadata": merged_metadata({}, p.get("metadata")), "status": "enabled", "url": p["url"],
        "_": {"secret": secret, "connect": p.get("connect", False)},
    }  # fmt: skip
    turn.put(endpoint)
    return {**endpoint, "secret": secret}


def configure(turn: Turn, url: str | None, secret: str, events: tuple[str, ...]) -> None:
    """Set, move or remove the endpoint given at start; it receives connected accounts' events too."""
    if url is None:
        turn.store.delete(CONFIGURED)
        return
    turn.put(
        {
            "id": CONFIGURED, "object": "webhook_endpoint", "api_version": API_VERSION, "application": None,
            "created": turn.now, "description": "Given at start", "enabled_events": list(events), "livemode": False,
            "metadata": {}, "status": "enabled", "url": url, "_": {"secret": secret, "connect": None},
        },
        "",
    )  # fmt: skip


def update(turn: Turn, p: Doc, ident: str) -> Doc:
    endpoint = turn.get("webhook_endpoint", ident)
    for name in ("url", "enabled_events", "description"):
        if name in p:
            endpoint[name] = p[name] or None
    if "disabled" in p:
        endpoint["status"] = "disabled" if p["disabled"] else "enabled"
    if "metadata" in p:
        endpoint["metadata"] = merged_metadata(endpoint["metadata"], p["metadata"])
    return turn.put(endpoint)


def delete(turn: Turn, _p: Doc, ident: str) -> Doc:
    turn.get("webhook_endpoint", ident)
    turn.store.delete(ident)
    return {"id": ident, "object": "webhook_endpoint", "deleted": True}


def wanting(endpoints: list[Doc], kind: str, account: str) -> list[Doc]:
    """Enabled endpoints subscribed to this type; `connect` ones get connected accounts' events, the others our own."""
    return [
        each
        for each in endpoints
        if each["status"] == "enabled"
        and each["_"]["connect"] in (None, bool(account))
        and ("*" in each["enabled_events"] or kind in each["enabled_events"])
    ]
