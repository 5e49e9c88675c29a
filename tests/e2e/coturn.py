"""Debian's coturn under this repository's configuration, on a port of its own with a certificate of its own."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from tests.conftest import free_port

CONFIGURATION = Path(__file__).parents[2] / "config" / "coturn.conf"
PROGRAM = shutil.which("turnserver")
SECRET = "the secret of gateway and coturn"


@dataclass
class Coturn:
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"turns:127.0.0.1:{self.port}?transport=tcp"


@contextlib.asynccontextmanager
async def coturn(folder: Path, allowed: str = "203.0.113.10", extra: Sequence[str] = ()) -> AsyncIterator[Coturn]:
    """Run it with config/coturn.conf, only the lines marked CHANGE changed, and `extra` lines appended."""
    folder.mkdir(parents=True, exist_ok=True)
    certificate(folder)
    server = Coturn(free_port(), folder / "coturn.log")
    text = CONFIGURATION.read_text()
    for name, value in {
        "tls-listening-port": server.port, "cert": folder / "cert.pem", "pkey": folder / "key.pem",
        "static-auth-secret": SECRET, "allowed-peer-ip": allowed, "log-file": server.log,
    }.items():  # fmt: skip
        text, count = re.subn(rf"(?m)^{name}=.*$", f"{name}={value}", text)
        assert count == 1, name
    here = ["listening-ip=127.0.0.1", "relay-ip=127.0.0.1", f"pidfile={folder / 'pid'}", f"userdb={folder / 'db'}"]
    (folder / "coturn.conf").write_text("\n".join([text, *here, *extra, ""]))
    assert PROGRAM is not None
    process = await asyncio.create_subprocess_exec(
        PROGRAM, "-c", str(folder / "coturn.conf"),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, cwd=folder,
    )  # fmt: skip
    try:
        await _answers(server.port)
        yield server
    finally:
        process.terminate()
        await process.wait()


async def _answers(port: int) -> None:
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.05)


def certificate(folder: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, SHA256())
    )  # fmt: skip
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
