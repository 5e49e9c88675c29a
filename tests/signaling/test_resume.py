"""Resume secrets: one seat each, rotated, bound to the page's key, and nothing else opens."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Unauthorized
from gateway.journal import Journal
from gateway.signaling import resume as module
from gateway.signaling.resume import PREVIOUS_MS, Issued, ResumeSecrets
from tests.clocks import HandClock

PRIVATE = ec.derive_private_key(7, ec.SECP256R1())
OTHER = ec.derive_private_key(8, ec.SECP256R1())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    numbers = key.public_key().public_numbers()
    return {"kty": "EC", "crv": "P-256", "x": b64(numbers.x.to_bytes(32)), "y": b64(numbers.y.to_bytes(32))}


def proof(nonce: str, key: ec.EllipticCurvePrivateKey = PRIVATE) -> str:
    r, s = utils.decode_dss_signature(key.sign(nonce.encode(), ec.ECDSA(SHA256())))
    return b64(r.to_bytes(32) + s.to_bytes(32))


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def secrets(journal: Journal, clock: HandClock) -> ResumeSecrets:
    return ResumeSecrets(journal, clock)


async def opens(secrets: ResumeSecrets, issued: Issued, key: ec.EllipticCurvePrivateKey | None = PRIVATE) -> bool:
    try:
        await secrets.verify(issued.resume, proof(issued.nonce, key) if key else None)
    except Unauthorized as error:
        if error.code != "resume_invalid":
            raise
        return False
    return True


async def test_law7_a_secret_and_its_keys_proof_open_their_own_seat(secrets: ResumeSecrets) -> None:
    issued = await secrets.issue("ses_1", "client", jwk(PRIVATE))
    back = await secrets.verify(issued.resume, proof(issued.nonce))
    assert (back.session, back.role, back.key) == ("ses_1", "client", jwk(PRIVATE))


async def test_law7_without_a_key_the_secret_alone_opens(secrets: ResumeSecrets) -> None:
    issued = await secrets.issue("ses_1", "expert", None)
    assert (await secrets.verify(issued.resume, None)).role == "expert"


@pytest.mark.parametrize(
    "bad", [None, "", "AAAA", "!!", "é", b64(bytes(64)), b64(b"\xff" * 64), proof("another"), proof("x", OTHER)]
)
async def test_law7_no_other_proof_opens(secrets: ResumeSecrets, bad: str | None) -> None:
    issued = await secrets.issue("ses_1", "client", jwk(PRIVATE))
    with pytest.raises(Unauthorized) as caught:
        await secrets.verify(issued.resume, bad)
    assert caught.value.code == "resume_invalid"


async def test_law7_anothers_key_does_not_prove_it(secrets: ResumeSecrets) -> None:
    assert not await opens(secrets, await secrets.issue("ses_1", "client", jwk(PRIVATE)), OTHER)


async def test_law7_a_secret_opens_neither_the_other_seat_nor_another_session(secrets: ResumeSecrets) -> None:
    mine = await secrets.issue("ses_1", "client", None)
    await secrets.issue("ses_1", "expert", None)
    await secrets.issue("ses_2", "client", None)
    for forged in (mine.resume.replace(".client.", ".expert."), mine.resume.replace("ses_1", "ses_2")):
        assert not await opens(secrets, Issued(forged, mine.nonce), None)


@pytest.mark.parametrize("text", ["", ".", "ses_1.client", "ses_1.admin.x", "a.client.b.c", "ses_9.client.x", "..\n."])
async def test_law7_nonsense_opens_nothing_and_says_no_more_than_a_wrong_secret(
    secrets: ResumeSecrets, text: str
) -> None:
    assert not await opens(secrets, Issued(text, ""), None)


async def test_law7_the_one_before_serves_until_the_new_one_was_used(secrets: ResumeSecrets) -> None:
    first = await secrets.issue("ses_1", "client", jwk(PRIVATE))
    second = await secrets.issue("ses_1", "client", jwk(PRIVATE))
    assert await opens(secrets, first), "the page may have lost the answer that rotated it"
    assert await opens(secrets, second)
    assert not await opens(secrets, Issued(first.resume, second.nonce)), "each secret has its own nonce"
    third = await secrets.issue("ses_1", "client", jwk(PRIVATE))
    assert not await opens(secrets, first)
    assert await opens(secrets, second)
    assert await opens(secrets, third)


async def test_law7_the_one_before_serves_for_a_minute_at_most(secrets: ResumeSecrets, clock: HandClock) -> None:
    first = await secrets.issue("ses_1", "client", None)
    second = await secrets.issue("ses_1", "client", None)
    clock.pass_ms(PREVIOUS_MS - 1)
    assert await opens(secrets, first, None)
    clock.pass_ms(1)
    assert not await opens(secrets, first, None)
    assert await opens(secrets, second, None)


async def test_law7_a_page_with_another_key_ends_the_rights_of_the_one_before(secrets: ResumeSecrets) -> None:
    first = await secrets.issue("ses_1", "client", jwk(PRIVATE))
    second = await secrets.issue("ses_1", "client", jwk(OTHER))
    assert not await opens(secrets, first)
    assert await opens(secrets, second, OTHER)


async def test_law7_what_is_stored_opens_nothing(secrets: ResumeSecrets, journal: Journal) -> None:
    issued = await secrets.issue("ses_1", "client", None)
    key = journal.keys.of("ses_1", "resume")
    stored = b" ".join((await journal.redis.hgetall(key)).values())
    assert issued.resume.rpartition(".")[2].encode() not in stored
    assert await journal.redis.ttl(key) > 0


@given(st.text(max_size=100), st.text(max_size=100), st.text(max_size=60))
def test_law7_whatever_stands_in_key_and_proof_it_is_an_answer_and_not_a_crash(x: str, y: str, proof_: str) -> None:
    assert module._signed({"x": x, "y": y}, "nonce", proof_) is False
