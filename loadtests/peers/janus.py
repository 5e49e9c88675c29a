"""Janus (Debian's package): the EchoTest plugin over WebRTC legs, which ends DTLS and SRTP like every SFU."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, Final

from loadtests.packages import installed
from loadtests.peers.namespaces import namespace
from loadtests.peers.rig import MEASURED_CORE, Missing, Rig
from loadtests.peers.sealed import SealedCallers
from loadtests.processes import Child

PORT: Final = 18088
PATIENCE_S: Final = 20.0
_LIBRARIES: Final = "/usr/lib/*/janus"


def open_janus(sessions: int, profile: str) -> Rig:
    """Each session echoes to its own leg. `profile`: SHA1 or GCM. Raises Missing."""
    if shutil.which("janus") is None:
        raise Missing("janus is not installed")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-janus-")))
        with namespace() as address:
            relay = stack.enter_context(Child(_command(folder, address), MEASURED_CORE))
            callers = SealedCallers(stack, address, profile)
            control = _Control()
            control.wait(relay)
            for _ in range(sessions):
                callers.connected(do="answer", sdp=control.echo(callers.ask(do="offer")["sdp"]))
            generator = callers.generator()
        generator.flows((number, number, b"") for number in range(sessions))
        rig = Rig(f"Janus {profile}", installed("janus") or "", (relay.pid,), generator, sessions)
        rig.seal = callers.seal
        rig.notes.append("EchoTest, WebRTC legs")
        rig.stack = stack.pop_all()
    return rig


def _command(folder: Path, address: str) -> list[str]:
    """A configuration of our own: one plugin, one transport, nothing from /etc."""
    libraries = next(Path("/").glob(_LIBRARIES.lstrip("/")), None)
    if libraries is None:
        raise Missing("Janus has no plugins here")
    for kind, name in (("plugins", "libjanus_echotest.so"), ("transports", "libjanus_http.so")):
        (folder / kind).mkdir()
        (folder / kind / name).symlink_to(libraries / kind / name)
    (folder / "janus.jcfg").write_text(
        f'general: {{ configs_folder = "{folder}"\n plugins_folder = "{folder}/plugins"\n'
        f' transports_folder = "{folder}/transports"\n debug_level = 2\n session_timeout = 0\n'
        f' admin_secret = "{secrets.token_hex(8)}" }}\n'
        f'nat: {{ ice_enforce_list = "{address}" }}\nmedia: {{ ipv6 = false }}\n'
    )
    (folder / "janus.transport.http.jcfg").write_text(
        f'general: {{ http = true\n port = {PORT}\n ip = "127.0.0.1"\n https = false }}\n'
        "admin: { admin_http = false }\n"
    )
    return ["janus", "--configs-folder", str(folder)]


class _Control:
    """Its HTTP API."""

    def __init__(self) -> None:
        self._base = f"http://127.0.0.1:{PORT}/janus"

    def wait(self, relay: Child) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and relay.alive:
            with contextlib.suppress(OSError):
                self._ask("/info")
                return
            time.sleep(0.1)
        raise RuntimeError(f"Janus does not answer: {relay.said()}")

    def echo(self, offer: str) -> str:
        """A session of the EchoTest; the answer."""
        session = self._ask("", janus="create")["data"]["id"]
        handle = self._ask(f"/{session}", janus="attach", plugin="janus.plugin.echotest")["data"]["id"]
        body, jsep = {"audio": True, "video": True}, {"type": "offer", "sdp": offer}
        self._ask(f"/{session}/{handle}", janus="message", body=body, jsep=jsep)
        for _ in range(10):
            event = self._ask(f"/{session}?maxev=1")
            if "jsep" in event:
                return str(event["jsep"]["sdp"])
        raise RuntimeError("Janus gives no answer")

    def _ask(self, path: str, **body: Any) -> dict[str, Any]:
        data = json.dumps(body | {"transaction": secrets.token_hex(6)}).encode() if body else None
        request = urllib.request.Request(self._base + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            answer: dict[str, Any] = json.load(response)
        if answer.get("janus") == "error":
            raise RuntimeError(f"Janus refuses: {answer['error']}")
        return answer
