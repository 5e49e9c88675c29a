"""TURN credentials: one leg's, for a while, and such as coturn computes them."""

from __future__ import annotations

import base64
import hashlib
import hmac

from gateway.signaling.turn import Turn

NOW_MS = 1_700_000_000_500
TURN = Turn(("turns:turn.example.com:443?transport=tcp",), "a secret of two servers", 3600)


def test_a_password_is_the_hmac_of_expiry_session_and_role() -> None:
    (server,) = TURN.servers("ses_1", "client", NOW_MS)
    assert server.urls == ["turns:turn.example.com:443?transport=tcp"]
    assert server.username == "1700003600:ses_1.client"
    digest = hmac.new(b"a secret of two servers", b"1700003600:ses_1.client", hashlib.sha1).digest()
    assert server.credential == base64.b64encode(digest).decode()


def test_no_two_legs_share_credentials() -> None:
    found = [TURN.servers(session, role, NOW_MS)[0] for session in ("ses_1", "ses_2") for role in ("client", "expert")]
    assert len({server.credential for server in found}) == len({server.username for server in found}) == 4


def test_without_urls_there_are_no_servers() -> None:
    assert Turn().servers("ses_1", "client", NOW_MS) == []


def test_the_secret_stays_out_of_the_repr() -> None:
    assert "secret of two" not in repr(TURN)
