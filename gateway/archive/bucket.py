"""An S3-compatible bucket as the archive's store: conditional writes keep its writers from overwriting each other.

Credentials come from where every S3 client looks for them (`AWS_ACCESS_KEY_ID` and its like, or the machine's role) and
are never in our settings, logs or errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotSupportedError, PreconditionError
from obstore.store import S3Store

from gateway.archive.places import BucketPlace
from gateway.archive.store import ArchiveUnavailable, Text

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import S3Config

T = TypeVar("T")
# Requests for many names that go out at once.
AT_ONCE: Final = 16
CONNECT: Final = timedelta(seconds=3)
REQUEST: Final = timedelta(seconds=30)
# Callers of REST wait for what is read: after these they hear that it is away.
RETRIES: Final = 2
RETRYING: Final = timedelta(seconds=6)
METADATA: Final = "169.254.169.254"
CREDENTIALS: Final = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, if it has one)"
GRANTS: Final = "s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket"
# The first is how the library tells of S3's PermanentRedirect.
WRONG_REGION: Final = ("Received redirect without LOCATION", "<Code>AuthorizationHeaderMalformed</Code>")
WRONG_KEY: Final = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken"})


class Bucket:
    """A store (`gateway.archive.store.Store`)."""

    vanishes = False  # a request to a bucket that is gone fails

    def __init__(self, place: BucketPlace) -> None:
        self._place = place
        self._readers = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="bucket")
        plain = (place.endpoint or "").startswith("http://")
        config: S3Config = {}
        if place.region:
            config["region"] = place.region
        if place.endpoint:
            config["endpoint"] = place.endpoint
        self._s3 = S3Store(
            place.bucket, prefix=place.prefix or None, config=config,
            client_options={"allow_http": plain, "connect_timeout": CONNECT, "timeout": REQUEST},
            retry_config={"max_retries": RETRIES, "retry_timeout": RETRYING},
        )  # fmt: skip

    def __str__(self) -> str:
        return str(self._place)

    def prepare(self) -> None:
        """Making buckets is the operator's: with it goes who may read them."""

    def read(self, name: str) -> Text | None:
        def whole() -> Text:
            found = obstore.get(self._s3, name)
            return Text(bytes(found.bytes()), str(found.meta["e_tag"]))

        return self._missing(whole)

    def several(self, names: Iterable[str]) -> Iterator[Text | None]:
        return self._each(self.read, names)

    def tails(self, names: Iterable[str], length: int) -> Iterator[bytes | None]:
        end: GetOptions = {"range": {"suffix": length}}

        def tail(name: str) -> bytes | None:
            return self._missing(lambda: bytes(obstore.get(self._s3, name, options=end).bytes()))

        return self._each(tail, names)

    def _each(self, work: Callable[[str], T], names: Iterable[str]) -> Iterator[T]:
        """A few at a time, in their order."""
        left = iter(names)
        while some := list(islice(left, AT_ONCE)):
            yield from self._readers.map(work, some)

    def piece(self, name: str, start: int, length: int) -> bytes | None:
        return self._missing(lambda: bytes(obstore.get_range(self._s3, name, start=start, length=length)))

    def create(self, name: str, data: bytes) -> bool:
        with self._asking():
            try:
                obstore.put(self._s3, name, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
        return True

    def replace(self, name: str, data: bytes, version: str) -> bool:
        with self._asking():
            try:
                obstore.put(self._s3, name, data, mode={"e_tag": version}, use_multipart=False)
            except PreconditionError:
                return False
        return True

    def mark(self, names: Iterable[str]) -> None:
        def one(name: str) -> None:
            with self._asking():
                obstore.put(self._s3, name, b"", use_multipart=False)

        for _ in self._each(one, names):
            pass

    def remove(self, *names: str) -> None:
        def one(name: str) -> None:
            self._missing(lambda: obstore.delete(self._s3, name))

        for _ in self._each(one, names):
            pass

    def names(self, folder: str) -> list[str]:
        with self._asking():
            return sorted(each["path"] for page in obstore.list(self._s3, folder) for each in page)

    def folders(self, folder: str) -> list[str]:
        with self._asking():
            found = obstore.list_with_delimiter(self._s3, folder)
            return sorted(path.rpartition("/")[2] for path in found["common_prefixes"])

    def tidy(self) -> None:
        """An object is there whole or not at all."""

    def _missing(self, work: Callable[[], T]) -> T | None:
        """None only for an object that a bucket which answers does not have."""
        with self._asking():
            try:
                return work()
            except FileNotFoundError as fault:
                if _code(fault) != "NoSuchKey":
                    raise
                return None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as fault:
            raise ArchiveUnavailable(f"The archive {self._place} {_why(fault, self._place)}") from None


def _why(fault: Exception, place: BucketPlace) -> str:
    """What is wrong and what to do; nothing of the library's own text, which holds whole answers."""
    code, text = _code(fault), str(fault)
    if code in WRONG_KEY:
        return f"does not accept our credentials ({code}): set {CREDENTIALS} anew."
    if any(sign in text for sign in WRONG_REGION):
        return "is in another region: correct [archive] region, or endpoint."
    if code == "RequestTimeTooSkewed":
        return "refuses us because this machine's clock is wrong: set it."
    if METADATA in text:
        return f"needs credentials: set {CREDENTIALS}."
    if code == "AccessDenied" or re.search(r"status code: 40[13]", text):
        return f"refuses us ({code or 'no reason given'}): the key needs {GRANTS} on {place.bucket}."
    if code == "NoSuchBucket":
        return "is not there: create the bucket, or correct [archive] location, endpoint and region."
    if isinstance(fault, FileNotFoundError):
        return "does not answer as S3 does (404 without a reason): correct [archive] endpoint."
    if isinstance(fault, NotSupportedError) or code == "NotImplemented":
        return "cannot write on conditions (If-None-Match, If-Match): take another service, or a directory."
    if status := re.search(r"status code: (\d{3})", text):
        return f"answers {status[1]} {code}".rstrip() + "; it is asked again."
    return "does not answer; is [archive] endpoint right? It is asked again."


def _code(fault: Exception) -> str:
    """S3's own name for an error, such as NoSuchKey."""
    found = re.search(r"<Code>(\w+)</Code>", str(fault))
    return found[1] if found else ""
