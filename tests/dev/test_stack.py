"""`gateway dev` whole: what it prints, what it keeps, and what it refuses."""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from gateway.dev.stack import DevKeys, DevOptions, PortTaken, stack
from gateway.errors import GatewayError
from gateway.settings import BadConfiguration
from tests.conftest import free_port


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DevOptions:
    for name in [name for name in os.environ if name.startswith("GATEWAY_") or name == "REDIS_URL"]:
        monkeypatch.delenv(name)
    return DevOptions(port=free_port(), private_port=free_port(), media_port=free_port(), data=tmp_path / "data")


async def get(url: str, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.get(url, headers=headers) as response:
        return response.status, await response.text()


def said(lines: list[str]) -> dict[str, str]:
    return dict(line.rsplit(" ", 1) for line in lines)


async def test_it_tells_where_everything_is_and_everything_answers(options: DevOptions) -> None:
    lines: list[str] = []
    async with stack(options, lines.append):
        told = said(lines)
        assert lines[-1] == f"ready http://localhost:{options.port}"
        assert told.keys() == {"api key", "stripe", "mail", "ready"}
        assert (await get(told["ready"] + "/"))[0] == 200
        assert (await get(told["mail"]))[0] == 200
        assert (await get(told["stripe"] + "/sandbox/state"))[0] == 200
        assert (await get(f"http://127.0.0.1:{options.private_port}/readyz"))[0] == 200
        status, body = await get(told["ready"] + "/v1/sessions", Authorization=f"Bearer {told['api key']}")
        assert (status, json.loads(body)["data"]) == (200, [])


async def test_the_demo_starts_a_session_and_hears_of_it(options: DevOptions) -> None:
    async with stack(options, lambda _: None), aiohttp.ClientSession(f"http://localhost:{options.port}") as http:
        async with http.post("/demo/sessions", json={"unit_amount": 300}) as response:
            assert response.status == 201, await response.text()
            started = await response.json()
        assert started["links"]["client"] != started["links"]["expert"]
        async with asyncio.timeout(20):
            while True:
                async with http.get("/demo/state", params={"session": started["id"]}) as response:
                    state = await response.json()
                if {"session.created", "payment.held"} <= {event["type"] for event in state["events"]}:
                    break
                await asyncio.sleep(0.05)
        assert state["session"]["payment"]["amount_held"] == 9000
        assert [intent["amount"] for intent in state["stripe"]["payment_intents"]] == [9000]


async def test_a_second_start_on_the_same_data_knows_the_sessions_of_the_first(options: DevOptions) -> None:
    seen = []
    for _ in range(2):
        lines: list[str] = []
        async with stack(options, lines.append), aiohttp.ClientSession(f"http://localhost:{options.port}") as http:
            key = said(lines)["api key"]
            if not seen:
                async with http.post("/demo/sessions", json={}) as response:
                    seen.append((await response.json())["id"])
            async with http.get("/v1/sessions", headers={"Authorization": f"Bearer {key}"}) as response:
                assert [session["id"] for session in (await response.json())["data"]] == seen


async def test_kill_9_of_the_whole_leaves_nothing_that_hinders_the_next_start(options: DevOptions) -> None:
    command = [sys.executable, "-m", "gateway", "dev", "--port", str(options.port), "--data", str(options.data)]
    command += ["--private-port", str(options.private_port), "--media-port", str(options.media_port)]
    keys = []
    for end in (signal.SIGKILL, signal.SIGTERM):
        process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert process.stdout is not None
        async with asyncio.timeout(30):
            lines = [line.decode().strip() for line in [await process.stdout.readline() for _ in range(4)]]
        assert lines[-1] == f"ready http://localhost:{options.port}"
        keys.append(said(lines)["api key"])
        process.send_signal(end)
        try:
            async with asyncio.timeout(15):
                assert await process.wait() == (-end if end == signal.SIGKILL else 0)
        finally:
            if process.returncode is None:
                process.kill()
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ("port", socket.SOCK_STREAM),
        ("private_port", socket.SOCK_STREAM),
        ("media_port", socket.SOCK_DGRAM),
    ],
)
async def test_a_port_in_use_is_named_with_the_option_that_changes_it(options, option: str, kind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} .*--{option.replace('_', '-')}"):
            async with stack(replace(options, **{option: port}), lambda _: None):
                pass


async def test_settings_come_from_a_file_but_money_stays_in_the_sandbox(options, tmp_path, monkeypatch) -> None:
    file = tmp_path / "gateway.toml"
    key = f"[[api_keys]]\nsha256 = '{sha256(b'pg_test_mine').hexdigest()}'\naccount = 'acc_mine'\n"
    file.write_text(f"[session]\ncap_seconds = 77\n[archive]\nlocation = '/elsewhere'\nafter_days = 2\n{key}")
    monkeypatch.setenv("STRIPE_API_KEY", "sk_live_real")
    with capture_logs() as told:
        async with stack(replace(options, config=file), lambda _: None) as running:
            settings, url = running.settings, f"http://localhost:{options.port}/v1/sessions"
            assert (await get(url, Authorization="Bearer pg_test_mine"))[0] == 200
    assert (settings.session.cap_seconds, settings.archive.after_days) == (77, 2)
    assert [line["key"] for line in told if line["event"] == "ignored_setting"] == ["archive.location"]
    assert settings.stripe.api_base == running.stripe_url
    assert settings.stripe.api_key.get_secret_value() == running.keys.stripe_api_key


async def test_what_hinders_the_start_is_told_before_anything_is_printed(options, tmp_path) -> None:
    (tmp_path / "file").touch()
    lines: list[str] = []
    with pytest.raises(GatewayError, match="not a directory; choose another one with --data"):
        async with stack(replace(options, data=tmp_path / "file"), lines.append):
            pass
    (tmp_path / "gateway.toml").write_text("[log]\nlevel = 'loud'\n")
    with pytest.raises(BadConfiguration, match=r"log\.level"):
        async with stack(replace(options, config=tmp_path / "gateway.toml"), lines.append):
            pass
    assert lines == []


async def test_without_a_data_directory_nothing_is_left(options) -> None:
    async with stack(replace(options, data=None), lambda _: None) as running:
        folder = running.data_dir
        assert (folder / "keys.json").exists()
    assert not folder.exists()


def test_keys_are_made_once_and_for_the_owner_only(tmp_path: Path) -> None:
    keys = DevKeys.of(tmp_path)
    assert DevKeys.of(tmp_path) == keys
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert keys.api_key not in repr(keys)


@pytest.mark.parametrize(
    ("host", "public", "inside"),
    [
        ("127.0.0.1", "http://localhost:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0", "http://localhost:8080", "http://127.0.0.1:8080"),
        ("192.0.2.9", "http://192.0.2.9:8080", "http://192.0.2.9:8080"),
        ("2001:db8::1", "http://[2001:db8::1]:8080", "http://[2001:db8::1]:8080"),
    ],
)
def test_addresses_by_host(host: str, public: str, inside: str) -> None:
    options = DevOptions(host=host)
    assert (options.public_url, options.inside_url) == (public, inside)
