"""The gateway's exceptions, split by whose fault they are.

    GatewayError
    ├── CallerError            the request or message is at fault; safe to show, with what to do
    │   ├── InvalidRequest     400  malformed or refused by a rule
    │   ├── Unauthorized       401  no key or token, or not a valid one
    │   ├── Forbidden          403  the key lacks the scope
    │   ├── NotFound           404
    │   ├── Conflict           409  the state does not allow it, or another request is under way
    │   ├── Unprocessable      422  an idempotency key used again with other parameters
    │   └── TooMany            429
    ├── Unavailable            503  something we need is away; retrying is right
    │   ├── StoreUnavailable        Redis is away or did not confirm a write
    │   ├── RelayUnavailable        no relay can take the call
    │   └── StripeUnavailable       Stripe is away or told us to slow down
    └── Bug                    500  a broken invariant of ours

Each carries a stable `code`; `detail` is for people and never holds a secret, SDP or an address.
"""

from __future__ import annotations


class GatewayError(Exception):
    """Root of all our errors. `code` is stable and documented, `param` names the offending field if there is one."""

    status = 500
    code = "internal_error"

    def __init__(self, detail: str, *, code: str | None = None, param: str | None = None, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.param = param
        self.extra = extra


class CallerError(GatewayError):
    status = 400
    code = "invalid_request"


class InvalidRequest(CallerError):
    pass


class Unauthorized(CallerError):
    status = 401
    code = "unauthorized"


class Forbidden(CallerError):
    status = 403
    code = "forbidden"


class NotFound(CallerError):
    status = 404
    code = "not_found"


class Conflict(CallerError):
    status = 409
    code = "conflict"


class Unprocessable(CallerError):
    status = 422
    code = "unprocessable"


class TooMany(CallerError):
    status = 429
    code = "too_many_requests"


class Unavailable(GatewayError):
    status = 503
    code = "unavailable"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class RelayUnavailable(Unavailable):
    code = "relay_unavailable"


class StripeUnavailable(Unavailable):
    code = "stripe_unavailable"


class Bug(GatewayError):
    pass
