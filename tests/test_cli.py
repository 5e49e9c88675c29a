"""The command line: exit codes, help, and what goes to which stream."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from redis.asyncio import Redis

from gateway import __version__
from gateway.cli import main
from gateway.dev.valkey import EmbeddedValkey
from gateway.journal import Journal
from gateway.session import NewClient, NewExpert, NewSession, opened
from gateway.tokens import Tokens

SIGNING_KEY = "0123456789abcdef0123456789abcdef"
GOOD = f"""
[media]
advertise = ["192.0.2.1"]
[stripe]
api_key = "sk_test_file"
webhook_secret = "whsec_file"
[secrets]
signing_key = "{SIGNING_KEY}"
"""
COMMANDS = ["serve", "bridge", "dev", "check-config", "token", "replay", "reconcile", "evidence", "deliveries"]
COMMANDS += ["archive", "restore"]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GATEWAY_", "PARLEY_")) or name == "REDIS_URL"]:
        monkeypatch.delenv(name)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "gateway.toml"
    file.write_text(GOOD)
    return file


def ended(arguments: list[str]) -> int:
    """The exit code, also where argparse ends the process itself."""
    try:
        return main(arguments)
    except SystemExit as end:
        return int(end.code or 0)


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_is_everywhere_and_tells_the_exit_codes(command: list[str], capsys) -> None:
    assert ended([*command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "exit codes:" in shown
    assert "78" in shown


def test_version(capsys) -> None:
    assert ended(["--version"]) == 0
    assert capsys.readouterr().out == f"gateway {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["dev", "--port", "0"],
        ["dev", "--port", "70000"],
        ["dev", "--host", "nowhere"],
        ["token", "ses_1"],
        ["token", "ses_1", "--role", "client"],
        ["replay", "ses_1"],
        ["replay", "ses_1", "--config", "a", "--data", "b"],
    ],
)
def test_a_command_line_that_makes_no_sense_ends_with_2(arguments: list[str], capsys) -> None:
    assert ended(arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("command", ["serve", "bridge", "check-config"])
def test_a_bad_configuration_ends_with_78_and_names_its_keys(command: str, config: Path, capsys) -> None:
    config.write_text(GOOD + "[session]\ncap_secnds = 1\n")
    assert ended([command, "--config", str(config)]) == 78
    shown = capsys.readouterr()
    assert "session.cap_secnds" in shown.err
    assert shown.out == ""


def test_check_config_prints_what_is_in_force_with_secrets_masked(config: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("GATEWAY_SESSION__CAP_SECONDS", "60")
    assert ended(["check-config", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["session"]["cap_seconds"] == 60
    assert SIGNING_KEY not in shown
    assert "sk_test_file" not in shown


def test_a_failure_ends_with_1_in_one_line(tmp_path: Path, capsys) -> None:
    assert ended(["replay", "ses_1", "--data", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert "is not the data directory" in shown
    assert shown.count("\n") == 1


def session() -> NewSession:
    return NewSession(NewClient("c1"), NewExpert("e1"), unit_amount=300, currency="usd", kind="pro_bono")


async def keep(url: str) -> None:
    async with Redis.from_url(url) as redis:
        step = opened(
            session(), id="ses_1", account="acc_1", livemode=False, now=0, cap_ms=60_000, expires_ms=4 * 10**12
        )
        await Journal(redis).commit("ses_1", {"session": (0, step.record.to_dict())})


@pytest.mark.parametrize("running", [True, False])
async def test_replay_reads_a_data_directory_whether_its_gateway_runs_or_not(running: bool, tmp_path, capsys) -> None:
    async with EmbeddedValkey(tmp_path / "valkey") as valkey:
        await keep(valkey.url)
        if running:
            assert await asyncio.to_thread(ended, ["replay", "ses_1", "--data", str(tmp_path), "--json"]) == 0
    if not running:
        assert await asyncio.to_thread(ended, ["replay", "ses_1", "--data", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["bill"]["amount_total"] == 0
    assert told["differences"] == {}


async def test_replay_of_an_unknown_session_fails(tmp_path: Path, capsys) -> None:
    async with EmbeddedValkey(tmp_path / "valkey"):
        assert await asyncio.to_thread(ended, ["replay", "ses_2", "--data", str(tmp_path)]) == 1
    assert "There is no session ses_2" in capsys.readouterr().err


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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_lets_the_work_clean_up_and_ends_with_0(number: signal.Signals) -> None:
    program = (
        "import asyncio, sys\n"
        "from gateway.cli import run\n"
        "async def work():\n"
        "    print('working', flush=True)\n"
        "    try: await asyncio.sleep(30)\n"
        "    finally: print('cleaned', flush=True)\n"
        "sys.exit(run(work()))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(number)
        assert "cleaned" in process.stdout.read()
        assert process.wait(10) == 0
