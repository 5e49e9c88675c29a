"""One request in, one answer out: key, parameters, endpoint, idempotency, events. No sockets, no clock."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.dev.sandbox import accounts, answers, charges, events, form, intents, refunds, routes, validate
from gateway.dev.sandbox.faults import Fault, FaultBook, unknown_error
from gateway.dev.sandbox.faults import refusal as faulty
from gateway.dev.sandbox.idempotency import KeyBook, fingerprint
from gateway.dev.sandbox.limits import Limits
from gateway.dev.sandbox.refusals import Refusal, not_modelled, unrecognized
from gateway.dev.sandbox.store import Doc, SavedAnswer, Store
from gateway.dev.sandbox.turn import Terms, Turn

_DUE = {"settle": charges.settle_due, "hold": intents.expire_due, "refund": refunds.late}


@dataclass(frozen=True, slots=True)
class Request:
    """As it came: `form` is the query of a GET or DELETE, or the body of a POST, still encoded."""

    method: str
    path: str
    form: str
    authorization: str | None = None
    account: str = ""
    key: str | None = None
    json: bool = False

    @property
    def target(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Api:
    """Stripe's API over one store. `handle` is atomic; `faults`, `limits` and `keys` are for the shell."""

    def __init__(self, store: Store, terms: Terms, new_id: Callable[[str], str]) -> None:
        self.store = store
        self.terms = terms
        self.new_id = new_id
        self.faults = FaultBook()
        self.keys = KeyBook(store)
        self.limits = Limits()

    def turn(self, now_ms: int, **more: Any) -> Turn:
        return Turn(store=self.store, now=now_ms // 1_000, new_id=self.new_id, terms=self.terms, **more)

    def work(self, now_ms: int, job: Callable[[Turn], Doc], **more: Any) -> Doc:
        """One transaction of our own making (private routes, pages, timers), with its events."""
        with self.store.transaction():
            turn = self.turn(now_ms, **more)
            result = job(turn)
            events.post(self.store, self.faults, turn.emitted, now_ms)
        return result

    def next_due_ms(self) -> int | None:
        at = self.store.next_due()
        return None if at is None else at * 1_000

    def handle_due(self, now_ms: int) -> None:
        """What time itself does: holds expire, late refunds turn, payments settle."""
        at = self.store.next_due()
        if at is None or at * 1_000 > now_ms:
            return
        for kind, ident in self.store.due(now_ms // 1_000):

            def job(turn: Turn, kind: str = kind, ident: str = ident) -> Doc:
                _DUE[kind](turn, ident)
                return {}

            self.work(now_ms, job)

    def admit(self, request: Request, now_ms: int) -> Answer | None:
        """The checks before an endpoint begins. An Answer ends the request; after None comes `execute` or `abandon`."""
        try:
            _authenticate(request.authorization)
            self.limits.take(_operation(request), now_ms)
            if request.key is None or request.method != "POST":
                return None
            known = self.keys.begin(request.account, request.key, request.target, request.form, now_ms // 1_000)
        except Refusal as refusal:
            return _refused(refusal, self.new_id("req"), request)
        return _again(known, self.new_id("req"), request) if known else None

    def abandon(self, request: Request) -> None:
        """The request ends without having begun: its key is free again."""
        if request.key is not None:
            self.keys.finish(request.account, request.key)

    def execute(self, request: Request, now_ms: int, fault: Fault | None = None) -> Answer:
        """Run an admitted request to its end, and remember the answer under its key."""
        self.handle_due(now_ms)
        ident = self.new_id("req")
        try:
            return self._execute(request, now_ms, fault, ident)
        finally:
            self.abandon(request)

    def _execute(self, request: Request, now_ms: int, fault: Fault | None, ident: str) -> Answer:
        try:
            if fault is not None and fault.kind in ("409", "429", "500"):
                raise faulty(fault)
            route, ids, params = self._checked(request)
            with self.store.transaction():
                answer = self._run(request, now_ms, route, ids, params, ident)
                if fault is not None and fault.kind == "500_after_commit":
                    answer = _refused(unknown_error(saved=True), ident, request)
                self._remember(request, answer, now_ms)
            return answer
        except Refusal as refusal:
            answer = _refused(refusal, ident, request)
            if refusal.saved:
                with self.store.transaction():
                    self._remember(request, answer, now_ms)
            return answer

    def _checked(self, request: Request) -> tuple[routes.Route, tuple[str, ...], Doc]:
        found = routes.find(request.method, request.path)
        if found is None:
            raise unrecognized(request.method, request.path)
        if request.json:
            raise Refusal(
                "Invalid request (check that your POST content type is application/x-www-form-urlencoded). If "
                "you have any "
                "questions, we can help at https://support.stripe.com/.",
                saved=False,
            )
        route, ids = found
        params = validate.parameters(route.call)(form.decode(request.form))
        for name in params:
            if name not in route.models:
                raise not_modelled(name)
        if request.account and self.store.get("account", request.account, "") is None:
            raise accounts.no_access(request.account)
        return route, ids, params

    def _run(
        self, request: Request, now_ms: int, route: routes.Route, ids: tuple[str, ...], params: Doc, ident: str
    ) -> Answer:
        turn = self.turn(now_ms, account=request.account, request=ident, key=request.key)
        expand = params.pop("expand", [])
        try:
            doc = route.endpoint(turn, params, *ids)
            listed = doc.get("object") == "list"
            shown = answers.expanded_page(turn, doc, expand) if listed else answers.shown(turn, doc, expand)
            answer = _answer(200, shown, ident, request)
        except Refusal as refusal:
            if not refusal.keep:
                raise
            answer = _refused(refusal, ident, request)
        events.post(self.store, self.faults, turn.emitted, now_ms)
        return answer

    def _remember(self, request: Request, answer: Answer, now_ms: int) -> None:
        if request.key is None or request.method != "POST":
            return
        print_ = fingerprint(request.target, request.form)
        saved = SavedAnswer(
            request.target, print_, answer.status, answer.body, answer.headers["Request-Id"], now_ms // 1_000
        )
        self.store.save(request.account, request.key, saved)


def _operation(request: Request) -> str:
    """The endpoint without its ids: what Stripe counts."""
    found = routes.find(request.method, request.path)
    return found[0].call if found else ""


def _authenticate(authorization: str | None) -> None:
    """Any `sk_test_...` key will do; others are refused as unknown (docs.stripe.com/api/authentication)."""
    if not authorization:
        raise Refusal(
            "You did not provide an API key. You need to provide your API key in the Authorization header, using "
            "Bearer auth "
            "(e.g. 'Authorization: Bearer YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for "
            "details, or we "
            "can help at https://support.stripe.com/.",
            status=401,
            saved=False,
        )
    key = authorization.removeprefix("Bearer ").strip()
    if not key.startswith("sk_test_") or len(key) < len("sk_test_") + 1:
        masked = key[:8] + "*" * max(0, len(key) - 12) + key[-4:] if len(key) > 12 else "*" * len(key)
        raise Refusal(f"Invalid API Key provided: {masked}", status=401, saved=False)


def _answer(status: int, doc: Doc, ident: str, request: Request, **headers: str) -> Answer:
    body = json.dumps(doc).encode()
    return Answer(status, body, {**_headers(ident, request), **headers})


def _headers(ident: str, request: Request) -> dict[str, str]:
    headers = {"Request-Id": ident}
    if request.key is not None:
        headers["Idempotency-Key"] = request.key
        headers["Original-Request"] = ident
    if request.account:
        headers["Stripe-Account"] = request.account
    return headers


def _refused(refusal: Refusal, ident: str, request: Request) -> Answer:
    body = refusal.body()
    body["error"]["request_log_url"] = f"https://dashboard.stripe.com/test/logs/{ident}"
    return _answer(refusal.status, body, ident, request, **refusal.headers)


def _again(known: SavedAnswer, ident: str, request: Request) -> Answer:
    headers = {**_headers(ident, request), "Original-Request": known.request, "Idempotent-Replayed": "true"}
    if known.status >= 500:
        headers["stripe-should-retry"] = "false"
    return Answer(known.status, known.body, headers)
