"""Stripe's refusals: what an API error says, as a value that the endpoints raise and the shell writes out."""

from __future__ import annotations

from typing import Any

from gateway.errors import GatewayError


class Refusal(GatewayError):
    """An answer that is no success, in Stripe's words (docs.stripe.com/api/errors).

    `keep`: what the endpoint wrote stays (a declined card leaves a failed charge behind).
    `saved`: an idempotency key remembers this answer; checks made before the endpoint begins are not remembered
    (docs.stripe.com/api/idempotent_requests).
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        keep: bool = False,
        saved: bool = True,
        headers: dict[str, str] | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, code=code or kind, param=param)
        self.status = status
        self.kind = kind
        self.stripe_code = code
        self.keep = keep
        self.saved = saved
        self.headers = headers or {}
        self.fields = {name: value for name, value in (fields or {}).items() if value is not None}

    def body(self) -> dict[str, Any]:
        error: dict[str, Any] = {"message": self.detail, "type": self.kind, **self.fields}
        if self.stripe_code:
            error["code"] = self.stripe_code
            error["doc_url"] = f"https://stripe.com/docs/error-codes/{self.stripe_code.replace('_', '-')}"
        if self.param:
            error["param"] = self.param
        return {"error": error}


def missing(label: str, given: str, param: str | None, *, in_path: bool) -> Refusal:
    """404 for an id in the path, 400 for one in a parameter."""
    return Refusal(
        f"No such {label}: '{given}'",
        status=404 if in_path else 400,
        code="resource_missing",
        param=param or "id",
    )


def not_modelled(what: str) -> Refusal:
    """Real Stripe takes this; the sandbox says so instead of ignoring it."""
    return Refusal(
        f"The sandbox does not model {what}. Stripe itself accepts it.",
        code="sandbox_not_modelled",
        param=what,
        saved=False,
    )


def unrecognized(method: str, path: str) -> Refusal:
    return Refusal(
        f"Unrecognized request URL ({method}: {path}). Please see https://stripe.com/docs or we can help at "
        "https://support.stripe.com/.",
        status=404,
        saved=False,
    )
