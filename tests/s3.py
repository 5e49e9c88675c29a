"""An S3 service on loopback, spoken to over HTTP: moto's, behind a door that can shut, fail or lose an answer."""

from __future__ import annotations

import logging
import os
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

from gateway.archive.places import BucketPlace
from gateway.ids import new_id

Environ = dict[str, Any]
Answer = Callable[..., Any]
SECRET = "s3cr3t-that-must-not-be-told"
ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": ""}
BUCKET = "calls"
REFUSALS = {
    "503": ("503 Slow Down", "SlowDown"),
    "lost": ("503 Slow Down", "SlowDown"),
    "409": ("409 Conflict", "ConditionalRequestConflict"),
    "skewed": ("403 Forbidden", "RequestTimeTooSkewed"),
    "elsewhere": ("301 Moved Permanently", "PermanentRedirect"),
    "denied": ("403 Forbidden", "AccessDenied"),
}


class S3Service:
    """`fault`: given each request, says what becomes of it: None, a refusal, "lost" (done, and no word of it), or
    "unconditional" (as a service that knows no conditions on writes)."""

    def __init__(self) -> None:
        from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._moto: Answer = create_backend_app("s3")
        self.fault: Callable[[Environ], str | None] = lambda request: None
        self.requests: list[str] = []
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT")).close()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def place(self, bucket: str = BUCKET) -> BucketPlace:
        """Nobody has been there yet."""
        return BucketPlace(bucket, f"archive/{new_id('arc')}", self.url)

    @contextmanager
    def failing(self, fault: Callable[[Environ], str | None]) -> Iterator[None]:
        self.fault = fault
        try:
            yield
        finally:
            self.fault = lambda request: None

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Only known keys are let in, and it knows none."""
        from moto import settings

        before, settings.INITIAL_NO_AUTH_ACTION_COUNT = settings.INITIAL_NO_AUTH_ACTION_COUNT, 0
        try:
            yield
        finally:
            settings.INITIAL_NO_AUTH_ACTION_COUNT = before

    def _answer(self, request: Environ, start: Answer) -> Iterable[bytes]:
        self.requests.append(f"{request['REQUEST_METHOD']} {request['PATH_INFO']}")
        fault = self.fault(request)
        if fault == "unconditional":
            request = {name: value for name, value in request.items() if "MATCH" not in name}
        if fault == "lost":
            list(self._moto(request, lambda *_: None))
        if fault is not None and fault in REFUSALS:
            status, code = REFUSALS[fault]
            start(status, [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code></Error>".encode()]
        return self._moto(request, start)  # type: ignore[no-any-return]


@contextmanager
def credentials() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if value})
    os.environ.pop("AWS_SESSION_TOKEN", None)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
