"""`gateway dev`: the whole product on one machine, with a Valkey, a Stripe, a mailbox and a marketplace of its own.

What must outlive a restart (the Valkey's file, the sandbox's, the mails, the keys) is in one data directory; without
one a temporary folder is used and removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import tempfile
import tomllib
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import structlog

from gateway.app import Gateway
from gateway.dev.mailbox import Mailbox
from gateway.dev.marketplace import Marketplace, MarketplaceConfig
from gateway.dev.sandbox import PlatformConfig, Sandbox, SandboxConfig
from gateway.dev.valkey import EmbeddedValkey
from gateway.errors import GatewayError
from gateway.settings import PlatformAccount, Settings

log = structlog.get_logger(__name__)

ACCOUNT = "acc_demo"
# Beside the public port, so that bookmarks survive a restart; any free port when somebody else has them.
MAIL_OFFSET = 1
STRIPE_OFFSET = 2
PAY_OFFSET = 3
# Where a route would lead if we sent something; nothing is sent (RFC 5737 documentation address).
FAR_AWAY = ("192.0.2.1", 9)


class PortTaken(GatewayError):
    """Another process listens there; the text says on what, and which option chooses another."""

    code = "port_taken"


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What the command line may choose. `data` None: a temporary folder."""

    host: str = "127.0.0.1"
    port: int = 8080
    private_port: int = 9090
    media_port: int = 3478
    data: Path | None = None
    config: Path | None = None

    @property
    def name(self) -> str:
        """Of this machine in addresses for browsers, which give camera and microphone to https and localhost only."""
        address = ip_address(self.host)
        return "localhost" if address.is_loopback or address.is_unspecified else _bracketed(self.host)

    @property
    def public_url(self) -> str:
        return f"http://{self.name}:{self.port}"

    @property
    def inside_url(self) -> str:
        """How the parts on this machine reach the gateway."""
        host = "127.0.0.1" if ip_address(self.host).is_unspecified else self.host
        return f"http://{_bracketed(host)}:{self.port}"


@dataclass(frozen=True, slots=True, repr=False)
class DevKeys:
    """The secrets of a data directory, made at its first use."""

    api_key: str
    signing_key: str
    webhook_secret: str
    stripe_api_key: str
    stripe_webhook_secret: str

    @classmethod
    def new(cls) -> DevKeys:
        return cls(
            api_key="pg_test_" + secrets.token_urlsafe(32),
            signing_key=secrets.token_urlsafe(48),
            webhook_secret="whsec_" + b64encode(secrets.token_bytes(32)).decode(),
            stripe_api_key="sk_test_" + secrets.token_hex(24),
            stripe_webhook_secret="whsec_" + secrets.token_hex(24),
        )

    @classmethod
    def of(cls, data_dir: Path) -> DevKeys:
        """Those of the directory; new ones, readable by the owner only, in an empty one."""
        path = data_dir / "keys.json"
        if not path.exists():
            fresh = data_dir / f"keys.json.{os.getpid()}"
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
                json.dump(asdict(cls.new()), file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            fresh.rename(path)
        known = json.loads(path.read_text(encoding="utf-8"))
        return cls(**{field.name: known[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Running:
    """A stack that answers."""

    gateway: Gateway
    settings: Settings
    keys: DevKeys
    stripe_url: str
    mail_url: str
    data_dir: Path


@asynccontextmanager
async def stack(options: DevOptions, say: Callable[[str], None] = print) -> AsyncIterator[Running]:
    """Start everything, tell the addresses by `say`, a line each, and stop it all in the end.

    Raises PortTaken, ValkeyFailed, BadConfiguration.
    """
    _ports_are_free(options)
    async with AsyncExitStack() as parts:
        data_dir = parts.enter_context(_data_dir(options.data))
        keys = DevKeys.of(data_dir)
        valkey_url = await _valkey(parts, data_dir)
        sandbox = await parts.enter_async_context(_sandbox(options, keys, data_dir))
        mailbox = await parts.enter_async_context(
            Mailbox(
                data_dir / "mail",
                host=options.host,
                name=options.name,
                http_port=_free_or_any(options.host, options.port + MAIL_OFFSET),
            )
        )
        overrides = _overrides(options, keys, valkey_url, sandbox.url, mailbox, data_dir)
        settings = Settings.load(options.config, overrides)
        for key in _set_in_vain(options.config, overrides):
            log.warning("ignored_setting", key=key, why="gateway dev decides it itself, see docs/operations.md")
        for name, platform in settings.stripe.platforms.items():
            sandbox.add_platform(_further(name, platform))
        marketplace = Marketplace(_market(options, keys, sandbox.url, mailbox, data_dir))
        await marketplace.start()
        gateway = await Gateway.start(settings, with_bridge=True, extra_routes=marketplace.routes())
        parts.push_async_callback(gateway.stop)
        parts.push_async_callback(marketplace.stop)
        for line in (f"api key {keys.api_key}", f"stripe {sandbox.url}", f"mail {mailbox.url}"):
            say(line)
        say(f"ready {options.public_url}")
        yield Running(gateway, settings, keys, sandbox.url, mailbox.url, data_dir)


@contextlib.contextmanager
def _data_dir(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        try:
            chosen.mkdir(parents=True, exist_ok=True, mode=0o700)
        except (FileExistsError, NotADirectoryError):
            raise GatewayError(f"{chosen} is not a directory; choose another one with --data") from None
        yield chosen.absolute()
        return
    temporary = Path(tempfile.mkdtemp(prefix="parley-dev-"))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


async def _valkey(parts: AsyncExitStack, data_dir: Path) -> str | None:
    """None when the environment names a Redis: then the settings read it from there."""
    if os.environ.get("REDIS_URL") or os.environ.get("GATEWAY_REDIS__URL"):
        return None
    valkey = await parts.enter_async_context(EmbeddedValkey(data_dir / "valkey"))
    return valkey.url


@asynccontextmanager
async def _sandbox(options: DevOptions, keys: DevKeys, data_dir: Path) -> AsyncIterator[Sandbox]:
    sandbox = Sandbox(
        SandboxConfig(
            host=options.host,
            port=_free_or_any(options.host, options.port + STRIPE_OFFSET),
            data_dir=data_dir / "stripe",
            webhook_url=f"{options.inside_url}/v1/stripe/events",
            webhook_secret=keys.stripe_webhook_secret,
        )
    )
    await sandbox.start()
    try:
        yield sandbox
    finally:
        await sandbox.stop()


def _overrides(
    options: DevOptions, keys: DevKeys, valkey_url: str | None, stripe_url: str, mailbox: Mailbox, data_dir: Path
) -> dict[str, Any]:
    """What the stack itself decides; all else may come from the file and the environment."""
    groups: dict[str, Any] = {
        "server": {
            "host": options.host,
            "port": options.port,
            "private_host": options.host,
            "private_port": options.private_port,
            "public_url": options.public_url,
        },
        "media": {
            "host": options.host,
            "port": options.media_port,
            "advertise": [_reachable(options.host)],
            "workers": 1,
        },
        "meter": {"journal": str(data_dir / "usage.jsonl")},
        "pay": _pay(options),
        "archive": {"location": str(data_dir / "archive")},
        # Real keys in the environment are not touched: this stack must never move real money.
        "stripe": {
            "api_key": keys.stripe_api_key,
            "api_base": stripe_url,
            "webhook_secret": keys.stripe_webhook_secret,
            "sole_gateway": True,
            "publishable_key": "pk_test_sandbox",
            "js_url": f"{stripe_url}/v3/stripe.js",
            "requests_per_second": 0,
            "requests_per_endpoint": 0,
        },
        "mail": {"host": mailbox.host, "port": mailbox.smtp_port, "starttls": False, "username": None},
        "webhooks": {
            "endpoints": [{"url": f"{options.inside_url}/demo/webhooks", "secret": keys.webhook_secret}],
            "allow_private": True,
        },
        # After those of the file, so that a fault is told by the number that it has there.
        "api_keys": [
            *_listed(_of_file(options.config).get("api_keys")),
            {"sha256": sha256(keys.api_key.encode()).hexdigest(), "account": ACCOUNT},
        ],
        "secrets": {"signing_key": keys.signing_key},
    }
    return groups | ({"redis": {"url": valkey_url}} if valkey_url else {})


def _of_file(file: Path | None) -> dict[str, Any]:
    """What the file says; nothing where it cannot be read: `Settings.load` tells that."""
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _listed(said: object) -> list[Any]:
    return said if isinstance(said, list) else []


def _set_in_vain(file: Path | None, overrides: Mapping[str, Any]) -> list[str]:
    """The keys of the file that the stack decides itself."""
    said = _of_file(file)
    return [
        f"{name}.{key}"
        for name, own in overrides.items()
        if isinstance(own, Mapping) and isinstance(said.get(name), Mapping)
        for key in own
        if key in said[name]
    ]


def _further(name: str, platform: PlatformAccount) -> PlatformConfig:
    """Platform accounts of the configuration are accounts of the sandbox here."""
    secret = platform.webhook_secret.get_secret_value()
    return PlatformConfig(
        name, platform.api_key.get_secret_value(), platform.country, (platform.settles_in,), secret
    )  # fmt: skip


def _pay(options: DevOptions) -> dict[str, Any]:
    """The pay page's origin: the host's other port is another origin to the browser."""
    port = _free_or_any(options.host, options.port + PAY_OFFSET) or _some_port(options.host)
    return {"host": options.host, "port": port, "public_url": f"{options.public_url.rpartition(':')[0]}:{port}"}


def _market(options: DevOptions, keys: DevKeys, stripe_url: str, mailbox: Mailbox, data_dir: Path) -> MarketplaceConfig:
    return MarketplaceConfig(
        gateway_url=options.inside_url,
        api_key=keys.api_key,
        webhook_secret=keys.webhook_secret,
        stripe_url=stripe_url,
        stripe_api_key=keys.stripe_api_key,
        mail_url=mailbox.url,
        data_dir=data_dir,
    )


def _ports_are_free(options: DevOptions) -> None:
    wanted = (
        ("--port", socket.SOCK_STREAM, options.port),
        ("--private-port", socket.SOCK_STREAM, options.private_port),
        ("--media-port", socket.SOCK_DGRAM, options.media_port),
        ("--media-port", socket.SOCK_STREAM, options.media_port),
    )
    for option, kind, port in wanted:
        if not _free(options.host, port, kind):
            what = "UDP" if kind == socket.SOCK_DGRAM else "TCP"
            raise PortTaken(f"{what} port {port} on {options.host} is in use; choose another one with {option}")


def _free(host: str, port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    with socket.socket(family, kind) as probe:
        if kind == socket.SOCK_STREAM:
            # As the servers do: connections of a former run that are still closing are no obstacle.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _free_or_any(host: str, port: int) -> int:
    return port if port < 65536 and _free(host, port) else 0


def _some_port(host: str) -> int:
    family = socket.AF_INET6 if ip_address(host).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _reachable(host: str) -> str:
    """The address to offer for media: the host itself, or for 0.0.0.0 the one that this machine's routes leave from."""
    if not ip_address(host).is_unspecified:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(FAR_AWAY)
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
