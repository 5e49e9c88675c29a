"""`gateway token`: minted here, or asked of a gateway that runs."""

from __future__ import annotations

import asyncio

from aiohttp import web
from aiohttp.test_utils import TestServer

from gateway.dev.valkey import EmbeddedValkey
from gateway.tokens import Tokens
from tests.cli.ended import GOOD, SIGNING_KEY, ended, keep


async def test_a_token_from_the_configuration_opens_its_role_of_its_session(config, tmp_path, capsys) -> None:
    async with EmbeddedValkey(tmp_path / "valkey") as valkey:
        await keep(valkey.url)
        config.write_text(GOOD + f'[redis]\nurl = "{valkey.url}"\n')
        arguments = ["token", "ses_1", "--role", "expert", "--config", str(config)]
        assert await asyncio.to_thread(ended, arguments) == 0
    (_, token), (_, url) = (line.split() for line in capsys.readouterr().out.splitlines())
    tokens = Tokens(SIGNING_KEY.encode())
    assert tokens.open("join", token, now=0).role == "expert"
    assert url.startswith("http://localhost:8080/call#")
    assert tokens.open("entry", url.partition("#")[2], now=0).session == "ses_1"


async def test_a_token_is_asked_of_a_running_gateway_with_the_api_key(capsys, monkeypatch) -> None:
    async def tokens(request: web.Request) -> web.Response:
        if request.headers["Authorization"] != "Bearer pg_test_key":
            return web.json_response({"code": "unauthorized", "detail": "No."}, status=401)
        role = (await request.json())["role"]
        return web.json_response({"token": f"T-{role}", "url": "https://example.com/call#S"})

    app = web.Application()
    app.router.add_post("/v1/sessions/ses_1/tokens", tokens)
    async with TestServer(app) as server:
        asked = ["token", "ses_1", "--role", "client", "--url", str(server.make_url("/"))]
        monkeypatch.setenv("PARLEY_API_KEY", "pg_test_key")
        assert await asyncio.to_thread(ended, asked) == 0
        assert capsys.readouterr().out == "token T-client\nurl https://example.com/call#S\n"
        assert await asyncio.to_thread(ended, [*asked, "--api-key", "pg_test_other"]) == 1
        assert "unauthorized: No." in capsys.readouterr().err
