"""Law 1 as the two callers can see it: verification by commit and reveal, and a server that tampers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable

import pytest
from playwright.async_api import Page, expect

from tests.web.conftest import Visit
from tests.web.conversation import call, connected, holds, join, picture, signs, until
from tests.web.room import Room

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]

FALSE = ":".join(["AB"] * 32)
LINE = re.compile(r"a=fingerprint:sha-256 \S+")


async def test_law1_both_see_the_same_four_signs(visit: Visit, room: Room) -> None:
    client, expert = await call(visit)
    ours, theirs = await asyncio.gather(signs(client), signs(expert))
    assert ours == theirs
    assert len(ours) == 4
    await client.locator("#sas-chip").click()
    await expect(client.get_by_test_id("sas").locator("b")).to_have_text(ours)
    sent = [message["step"] for role in ("client", "expert") for message in room.seats[role].of("sas")]
    assert set(sent) == {"commit", "nonce", "reveal"}


async def test_law1_a_reload_is_a_new_identity_and_the_signs_reset(visit: Visit) -> None:
    client, expert = await call(visit)
    await asyncio.gather(signs(client), signs(expert))
    await client.evaluate(
        "window.seen = []; parley.addEventListener('sas', ({ detail }) => window.seen.push(detail.state))"
    )
    await expert.reload()
    await connected(client, expert)
    ours, theirs = await asyncio.gather(signs(client), signs(expert))
    assert ours == theirs
    assert await client.evaluate("window.seen") == ["none", "verifying", "ready"]


def second_line_before(sdp: str) -> str:
    return LINE.sub(lambda found: f"a=fingerprint:sha-256 {FALSE}\r\n{found[0]}", sdp)


def second_line_after(sdp: str) -> str:
    return LINE.sub(lambda found: f"{found[0]}\r\na=fingerprint:sha-256 {FALSE}", sdp)


def differing_levels(sdp: str) -> str:
    return sdp.replace("\r\nt=0 0\r\n", f"\r\nt=0 0\r\na=fingerprint:sha-256 {FALSE}\r\n", 1)


def weaker_hash(sdp: str) -> str:
    return LINE.sub(lambda found: f"{found[0]}\r\na=fingerprint:sha-1 {':'.join(['AB'] * 20)}", sdp)


@pytest.mark.parametrize("tampering", [second_line_before, second_line_after, differing_levels, weaker_hash])
async def test_law1_a_description_with_unequal_fingerprints_is_refused(
    visit: Visit, room: Room, tampering: Callable[[str], str]
) -> None:
    room.tamper = lambda sdp, role: tampering(sdp) if role == "expert" else sdp
    client, expert = await asyncio.gather(visit("client"), visit("expert"))
    await join(client, expert)
    await expect(expert.get_by_role("heading", name="We refused to connect this call")).to_be_visible()
    assert await expert.evaluate("parley.error.code") == "bad_fingerprint"
    assert await expert.evaluate("parley.peerConnection") is None
    assert not room.seats["expert"].of("description")


async def test_law1_a_swapped_fingerprint_never_connects(visit: Visit, room: Room) -> None:
    room.tamper = lambda sdp, role: LINE.sub(f"a=fingerprint:sha-256 {FALSE}", sdp) if role == "expert" else sdp
    client, expert = await asyncio.gather(visit("client"), visit("expert"))
    await join(client, expert)
    await until(lambda: bool(room.seats["expert"].of("description")))
    await holds(expert, "parley.peerConnection.connectionState === 'failed'")
    assert await expert.evaluate("parley.sas.state") == "none"
    assert await expert.evaluate("parley.state") != "connected"


async def test_law1_a_certificate_changed_within_a_connection_is_refused(visit: Visit, room: Room) -> None:
    client, expert = await call(visit)
    room.tamper = lambda sdp, role: LINE.sub(f"a=fingerprint:sha-256 {FALSE}", sdp) if role == "expert" else sdp
    await client.evaluate("parley.simulate('ice-restart')")
    await expect(expert.get_by_role("heading", name="We refused to connect this call")).to_be_visible()


async def test_law1_a_forged_commitment_is_shown_as_failed(visit: Visit, room: Room) -> None:
    room.forge = lambda message: (
        {**message, "value": message["value"][:-8] + "AAAAAAAA"} if message["step"] == "reveal" else message
    )
    _client, expert = await call(visit)
    await holds(expert, "parley.sas.state === 'failed'")
    await expect(expert.get_by_text("could not be verified")).to_be_visible()
    await expect(expert.locator("#sas-chip")).to_have_attribute("data-state", "failed")


async def test_law1_the_certificates_in_use_are_each_others(visit: Visit) -> None:
    """The proof of sealing, from statistics: what each browser talks to is the other browser's own certificate."""
    pages = await call(visit)
    await asyncio.gather(*(picture(page) for page in pages))
    (ours, peers), (theirs, back) = [await certificates(page) for page in pages]
    assert ours == back
    assert peers == theirs


async def certificates(page: Page) -> tuple[str, str]:
    own, remote = await page.evaluate(
        """async () => {
             const rows = await parley.peerConnection.getStats();
             const transport = [...rows.values()].find(({ type }) => type === "transport");
             return [transport.localCertificateId, transport.remoteCertificateId].map((id) => rows.get(id).fingerprint);
           }"""
    )
    return own, remote


EXCHANGE = """async ({ prints, proxy }) => {
  const { Sas } = await import("/sdk/parley.js");
  const clock = { after: () => null };
  const results = {};
  const side = (role, local, remote) => ({
    role, local, remote,
    sas: new Sas({
      session: "ses_1", role, generation: { mine: 1, peer: 1 }, clock,
      send: (message) => wires[role](message),
      ready: (symbols) => (results[role] = symbols.map(({ name }) => name).join(" ")),
      failed: (error) => (results[role] = error.code),
    }),
  });
  const [client, expert] = [side("client", prints[0], prints[1]), side("expert", prints[2], prints[3])];
  // Somebody in between, who plays the other role to each with certificates of his own.
  const [between, beyond] = [side("expert", prints[1], prints[0]), side("client", prints[3], prints[2])];
  const wires = proxy
    ? { client: (m) => between.sas.receive(m), expert: (m) => beyond.sas.receive(m) }
    : { client: (m) => expert.sas.receive(m), expert: (m) => client.sas.receive(m) };
  if (proxy) {
    between.sas.ready = beyond.sas.ready = () => null;
    const pass = (side, to) => (side.sas.send = (message) => to.sas.receive(message));
    pass(between, client);
    pass(beyond, expert);
  }
  const all = proxy ? [between, beyond, expert, client] : [expert, client];
  for (const { sas, local, remote } of all) await sas.start(local, remote);
  await new Promise((resolve) => setTimeout(resolve, 50));
  return [results.client, results.expert];
}"""


@pytest.fixture
def prints() -> list[str]:
    return ["1" * 64, "2" * 64, "3" * 64, "4" * 64]


async def test_law1_honest_sides_agree_on_the_signs(visit: Visit, prints: list[str]) -> None:
    page = await visit("client")
    one, two, *_ = prints
    client, expert = await page.evaluate(EXCHANGE, {"prints": [one, two, two, one], "proxy": False})
    assert client == expert
    assert len(client.split(" ")) >= 4


async def test_law1_relayed_values_over_other_certificates_fail_the_commitment(visit: Visit, prints: list[str]) -> None:
    page = await visit("client")
    assert (await page.evaluate(EXCHANGE, {"prints": prints, "proxy": False}))[1] == "sas_failed"


async def test_law1_two_separate_exchanges_of_somebody_in_between_show_different_signs(
    visit: Visit, prints: list[str]
) -> None:
    page = await visit("client")
    client, expert = await page.evaluate(EXCHANGE, {"prints": prints, "proxy": True})
    assert client
    assert expert
    assert client != expert


REFUSED = {
    "no line": "v=0\r\nm=audio 9 x 0\r\n",
    "not sha-256": f"a=fingerprint:sha-384 {':'.join(['AB'] * 48)}\r\n",
    "lone CR hides a line": f"a=fingerprint:sha-256 {FALSE}\r\ns=x\ra=fingerprint:sha-256 {FALSE[3:]}:00\r\n",
    "short": f"a=fingerprint:sha-256 {FALSE[:-3]}\r\n",
    "odd spacing": f"a=fingerprint:sha-256 {FALSE}\r\na=fingerprint: sha-256 {FALSE}\r\n",
    "two values": f"a=fingerprint:sha-256 {FALSE}\r\na=fingerprint:SHA-256 {FALSE[:-2]}00\r\n",
}


@pytest.mark.parametrize("sdp", REFUSED.values(), ids=REFUSED.keys())
async def test_law1_fingerprint_lines_that_could_be_read_in_two_ways_are_refused(visit: Visit, sdp: str) -> None:
    page = await visit("client")
    read = "(sdp) => import('/sdk/parley.js').then(({ fingerprintOf }) => fingerprintOf(sdp)).catch(({ code }) => code)"
    assert await page.evaluate(read, sdp) == "bad_fingerprint"
    good = f"v=0\r\na=fingerprint:sha-256 {FALSE}\r\nm=audio 9 x 0\r\na=fingerprint:SHA-256 {FALSE.lower()}\r\n"
    assert await page.evaluate(read, good) == "ab" * 32
