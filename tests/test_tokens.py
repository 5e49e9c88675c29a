"""Tokens open one role of one session, for a while."""

from __future__ import annotations

import jwt
import pytest

from gateway.errors import Unauthorized
from gateway.tokens import JOIN_TOKEN_S, Tokens, digest, same
from tests.orders import NOW

KEY = b"0" * 32


def test_law7_a_token_opens_one_role_of_one_session_for_ten_minutes() -> None:
    tokens = Tokens(KEY)
    grant = tokens.open("join", tokens.join("ses_1", "client", now=NOW), now=NOW)
    assert (grant.session, grant.role) == ("ses_1", "client")
    late = NOW + (JOIN_TOKEN_S + 10) * 1000
    with pytest.raises(Unauthorized) as caught:
        tokens.open("join", tokens.join("ses_1", "client", now=NOW), now=late)
    assert caught.value.code == "token_expired"


def test_law7_the_pay_pages_secret_opens_no_call_and_a_calls_secrets_open_no_pay_page() -> None:
    tokens = Tokens(KEY)
    made = {
        "entry": tokens.entry("ses_1", "client", expires_at=NOW + 60_000),
        "join": tokens.join("ses_1", "client", now=NOW),
        "pay": tokens.pay("ses_1", expires_at=NOW + 60_000),
    }
    for kind, secret in made.items():
        assert tokens.open(kind, secret, now=NOW).session == "ses_1"  # type: ignore[arg-type]
        for other in made.keys() - {kind}:
            with pytest.raises(Unauthorized):
                tokens.open(other, secret, now=NOW)  # type: ignore[arg-type]


@pytest.mark.parametrize("forged", ["", "x", "a.b.c", jwt.encode({"aud": "join"}, KEY, "HS256")])
def test_law7_what_is_not_ours_opens_nothing(forged: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        Tokens(KEY).open("join", forged, now=NOW)
    assert caught.value.code == "token_invalid"


def test_law7_a_token_of_another_key_or_kind_or_without_signature_opens_nothing() -> None:
    tokens = Tokens(KEY)
    claims = {"aud": "join", "sid": "ses_1", "role": "client", "jti": "t", "exp": NOW // 1000 + 60}
    for forged in (
        Tokens(b"1" * 32).join("ses_1", "client", now=NOW),
        tokens.entry("ses_1", "client", expires_at=NOW + 60_000),
        jwt.encode(claims, None, "none"),
        jwt.encode({**claims, "role": "admin"}, KEY, "HS256"),
    ):
        with pytest.raises(Unauthorized):
            tokens.open("join", forged, now=NOW)


def test_two_tokens_of_one_seat_are_told_apart() -> None:
    tokens = Tokens(KEY)
    ids = {tokens.open("join", tokens.join("ses_1", "client", now=NOW), now=NOW).id for _ in range(2)}
    assert len(ids) == 2


def test_secrets_are_kept_as_digests() -> None:
    assert same("secret", digest("secret"))
    assert not same("Secret", digest("secret"))


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Tokens(b"short")
