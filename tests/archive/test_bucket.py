"""A bucket that is away, refuses us or is none: a clear word of what to do, no secret in it, and nothing is lost."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from gateway.archive import bucket
from gateway.archive.archive import Archive
from gateway.archive.bucket import Bucket
from gateway.archive.places import BucketPlace
from gateway.archive.store import ArchiveUnavailable
from gateway.ids import new_id
from tests.archive.test_archive import CLIENT, snapshot
from tests.s3 import SECRET, S3Service


async def refused(place: BucketPlace) -> str:
    """What both a first start and a later request hear."""
    archive = Archive(Bucket(place))
    with pytest.raises(ArchiveUnavailable) as first:
        await archive.made()
    with pytest.raises(ArchiveUnavailable) as later:
        await archive.find(new_id("ses"))
    assert SECRET not in "".join(traceback.format_exception(first.value))
    assert first.value.detail == later.value.detail
    return first.value.detail


async def test_wrong_credentials_are_named_and_never_told(s3_service: S3Service) -> None:
    with s3_service.guarded():
        told = await refused(s3_service.place())
    assert "does not accept our credentials (InvalidAccessKeyId): set AWS_ACCESS_KEY_ID" in told
    assert "AKIAEXAMPLE" not in told


async def test_a_bucket_that_is_not_there_is_no_empty_archive(s3_service: S3Service) -> None:
    assert "create the bucket" in await refused(s3_service.place("no-such-bucket"))
    store = Bucket(s3_service.place("no-such-bucket"))
    for work in (lambda: store.names("money/d"), lambda: store.piece("a", 0, 1), lambda: store.create("a", b"")):
        with pytest.raises(ArchiveUnavailable):
            work()


async def test_a_service_that_answers_503_or_not_at_all_is_away(
    s3_service: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "RETRIES", 1)
    with s3_service.failing(lambda request: "503"):
        assert "answers 503 SlowDown; it is asked again" in await refused(s3_service.place())
    assert "does not answer" in await refused(BucketPlace("calls", "a", "http://127.0.0.1:9"))


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        ("denied", "the key needs s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket on calls"),
        ("skewed", "clock is wrong"),
        ("elsewhere", "correct [archive] region"),
    ],
)
async def test_a_refusal_says_what_to_do(s3_service: S3Service, refusal: str, told: str) -> None:
    with s3_service.failing(lambda request: refusal):
        assert told in await refused(s3_service.place())


async def test_a_conflict_of_two_writes_at_the_service_is_a_lost_race(s3_service: S3Service) -> None:
    """S3 answers 409 while another conditional write of the same name is under way."""
    archive, one = Archive(Bucket(s3_service.place())), snapshot(new_id("ses"))
    await archive.made()
    conflicts = iter(["409"])

    def once(request: dict[str, str]) -> str | None:
        return (
            next(conflicts, None) if request["REQUEST_METHOD"] == "PUT" and "/money/" in request["PATH_INFO"] else None
        )

    with s3_service.failing(once):
        await archive.keep([one])
    assert await archive.find(one.session) == one
    assert await archive.faults() == []


async def test_a_service_that_ignores_conditions_is_refused(s3_service: S3Service) -> None:
    archive = Archive(Bucket(s3_service.place()))
    with s3_service.failing(lambda request: "unconditional"), pytest.raises(ArchiveUnavailable, match="conditions"):
        await archive.made()


async def test_another_archive_in_its_place_is_none(s3_service: S3Service) -> None:
    archive = Archive(Bucket(s3_service.place()))
    archive.expected = new_id("arc")
    await archive.made()
    with pytest.raises(ArchiveUnavailable, match="location right"):
        await archive.sessions()


@pytest.mark.parametrize("number", range(6))
async def test_a_write_whose_answer_is_lost_is_known_as_our_own(s3_service: S3Service, number: int) -> None:
    """The library sends it again, and the bucket says that something is there already. Three names lead to it."""
    archive = Archive(Bucket(s3_service.place()))
    await archive.made()
    writes = iter(range(100))
    one = snapshot(new_id("ses"))

    def lost(request: dict[str, str]) -> str | None:
        return "lost" if request["REQUEST_METHOD"] == "PUT" and next(writes) == number else None

    with s3_service.failing(lost):
        await archive.keep([one])
    assert await archive.find(one.session) == one
    assert await archive.faults() == []
    assert len(archive.store.names(f"money/{archive.store.folders('money')[0]}")) == 1


async def test_a_pass_is_a_handful_of_requests(s3_service: S3Service) -> None:
    archive = Archive(Bucket(s3_service.place()))
    await archive.made()
    some = [snapshot(new_id("ses")) for _ in range(60)]
    s3_service.requests.clear()
    await archive.keep(some)
    kept = len(s3_service.requests) - 3 * len(some)  # names that lead to each: its own, and its two people's
    s3_service.requests.clear()
    await archive.find(some[0].session)
    assert (kept <= 14, len(s3_service.requests) <= 5) == (True, True), s3_service.requests[-20:]
    s3_service.requests.clear()
    assert await archive.find(new_id("ses")) is None
    assert [request.partition(" ")[0] for request in s3_service.requests] == ["GET"]
    s3_service.requests.clear()
    await archive.erase(CLIENT)
    assert len(s3_service.requests) == 3, "the names that lead to the client, and one part, read and replaced"


async def test_those_who_wait_for_it_keep_nobody_else_waiting(
    s3_service: S3Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names are looked up (for Stripe, for mail) in threads that are not the archive's."""
    archive = Archive(Bucket(s3_service.place()))
    await archive.made()
    monkeypatch.setattr(bucket, "RETRIES", 1)
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()

    def slow(request: dict[str, str]) -> None:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10)

    with s3_service.failing(slow):
        waiting = [asyncio.create_task(archive.find(new_id("ses"))) for _ in range(40)]
        async with asyncio.timeout(5):
            assert await asyncio.to_thread(lambda: 1) == 1
        gate.set()
        assert await asyncio.gather(*waiting) == [None] * 40
