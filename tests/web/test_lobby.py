"""Before the call: price, consent, devices, and every failure in words that say what to do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.web.conftest import Visit
from tests.web.conversation import connected, join, until
from tests.web.room import Room

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session")]


def without(*kinds: str, error: str = "NotFoundError") -> str:
    """A script that lets getUserMedia fail for these kinds ("audio", "video")."""
    asked = " || ".join(f"constraints.{kind}" for kind in kinds)
    return f"""const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
      navigator.mediaDevices.getUserMedia = async (constraints) => {{
        if (!window.allowed && ({asked})) throw new DOMException("test", "{error}");
        return open(constraints);
      }};"""


async def test_price_before_money(visit: Visit, room: Room) -> None:
    client = await visit("client")
    price = client.get_by_test_id("price")
    for text in ("3.00 USD", "Free at the start5 min", "30 min", "75.00 USD", "Held on Visa ···· 4242", "Mar 17, 2030"):
        await expect(price).to_contain_text(text)
    await expect(client.get_by_test_id("join")).to_have_text("Start: up to 75.00 USD")
    await expect(client.get_by_test_id("terms")).to_contain_text("75.00 USD at most")
    await expect(client.get_by_role("heading", name="Expert")).to_be_visible()
    assert room.seats["client"].hellos == []
    await join(client)
    await until(lambda: bool(room.seats["client"].hellos))
    hello = room.seats["client"].hellos[0]
    assert hello["consent"] == {"text_version": "1", "locale": "en", "amount_max": 7500}
    assert hello["key"].keys() == {"kty", "crv", "x", "y"}


async def test_the_expert_sees_earnings_and_nothing_of_the_card(visit: Visit, room: Room) -> None:
    room.entry["expert"] = {"payment": {"status": "pending"}}
    expert = await visit("expert")
    price = expert.get_by_test_id("price")
    await expect(price).to_contain_text("2.70 USD")
    await expect(price).to_contain_text("3.00 USD less 10% commission")
    await expect(expert.get_by_text("not confirmed yet")).to_be_visible()
    await expect(expert.get_by_test_id("join")).to_have_text("Start")
    await expect(expert.get_by_test_id("join")).to_be_enabled()


async def test_a_free_call_says_that_it_is_free(visit: Visit, room: Room) -> None:
    pricing = {"currency": "usd", "unit_amount": 0, "free_seconds": 0, "limit_seconds": 900, "amount_max": 0}
    room.entry["client"] = {"pricing": pricing, "payment": {"status": "none"}}
    client = await visit("client")
    await expect(client.get_by_test_id("price")).to_contain_text("This call is free for both.")
    await expect(client.get_by_test_id("join")).to_have_text("Start")


async def test_r14_a_booked_call_says_that_it_is_paid(visit: Visit, room: Room) -> None:
    pricing = {"currency": "usd", "unit_amount": 300, "free_seconds": 0, "limit_seconds": 1800, "amount_max": 9000}
    room.entry["client"] = {"pricing": {**pricing, "fee": 9000}, "payment": {"status": "captured"}}
    client = await visit("client")
    await expect(client.get_by_test_id("price")).to_contain_text("90.00 USD")
    await expect(client.get_by_test_id("terms")).to_contain_text("This meeting is paid.")
    await expect(client.get_by_test_id("join")).to_have_text("Start")


async def test_words_and_numbers_follow_the_callers_language(visit: Visit, room: Room) -> None:
    room.entry["client"] = {"locale": "de"}
    client = await visit("client")
    await expect(client.get_by_test_id("join")).to_have_text("Starten: bis zu 75,00 USD")
    await expect(client.get_by_test_id("mic")).to_have_attribute("aria-label", "Mikrofon stummschalten")
    assert await client.evaluate("document.documentElement.lang") == "de"


async def test_where_there_are_no_words_of_a_language_its_figures_are_not_used_either(visit: Visit, room: Room) -> None:
    room.entry["client"] = {"locale": "it"}
    client = await visit("client")
    await expect(client.get_by_test_id("join")).to_have_text("Start: up to 75.00 USD")
    assert await client.evaluate("document.documentElement.lang") == "en"


async def test_every_language_has_every_word(visit: Visit) -> None:
    page = await visit("client")
    gaps = await page.evaluate(
        """async () => {
             const { LANGUAGES } = await import("/static/strings.js");
             const holes = (text) => (text.match(/\\{\\w+\\}/g) ?? []).sort().join();
             return Object.entries(LANGUAGES).flatMap(([name, words]) =>
               Object.keys(LANGUAGES.en)
                 .filter((key) => !words[key] || holes(words[key]) !== holes(LANGUAGES.en[key]))
                 .map((key) => `${name}.${key}`));
           }"""
    )
    assert gaps == []
    codes = await page.evaluate(
        "import('/sdk/parley.js').then(({ SAS_SYMBOLS }) => new Set(SAS_SYMBOLS.map(({ emoji }) => emoji)).size)"
    )
    assert codes == 32


async def test_one_minute_is_singular_in_every_language(visit: Visit) -> None:
    page = await visit("client")
    said = await page.evaluate(
        """async () => {
             const view = await import("/static/view.js");
             const spans = (tag) => (view.speak(tag), [1, 60, 300].map((seconds) => view.span(seconds)));
             return ["en", "de-CH", "fr", "es", "it"].map(spans);
           }"""
    )
    english, german = ["1 second", "1 minute", "5 minutes"], ["1 Sekunde", "1 Minute", "5 Minuten"]
    french, spanish = ["1 seconde", "1 minute", "5 minutes"], ["1 segundo", "1 minuto", "5 minutos"]
    assert [[" ".join(text.split()) for text in row] for row in said] == [english, german, french, spanish, english]


@pytest.mark.parametrize(
    ("status", "code", "title"),
    [
        (401, "link_invalid", "This link does not open a call"),
        (401, "link_expired", "This link has expired"),
        (410, "session_ended", "This call is over"),
    ],
)
async def test_a_link_that_does_not_work(visit: Visit, room: Room, status: int, code: str, title: str) -> None:
    room.problem = (status, code)
    page = await visit("client")
    await expect(page.get_by_role("heading", name=title)).to_be_visible()
    await expect(page.get_by_role("heading", name=title)).to_be_focused()
    await expect(page.locator("#problem-text")).not_to_be_empty()


async def test_a_page_without_a_secret(visit: Visit, room: Room) -> None:
    page = await visit("client", path=f"{room.origin}/call")
    await expect(page.get_by_role("heading", name="This link does not open a call")).to_be_visible()


async def test_a_gateway_that_is_away_is_asked_again(visit: Visit, room: Room) -> None:
    room.away = True
    page = await visit("client")
    await expect(page.get_by_role("heading", name="The gateway cannot be reached")).to_be_visible()
    room.away = False
    await expect(page.get_by_test_id("join")).to_be_visible()


async def test_a_finished_session_shows_its_summary(visit: Visit, room: Room) -> None:
    room.end = {"reason": "client_left", "summary": {**room.summary("client", 600), "receipt_url": "/r/x"}}
    page = await visit("client")
    await expect(page.get_by_test_id("summary-total")).to_have_text("30.00 USD")
    await expect(page.get_by_test_id("receipt-link")).to_be_visible()
    await expect(page.get_by_test_id("rating-5")).to_be_hidden()


async def test_no_camera_leaves_the_voice(visit: Visit, room: Room) -> None:
    page = await visit("client", script=without("video"))
    await expect(page.get_by_text("No camera found")).to_be_visible()
    await expect(page.get_by_test_id("join")).to_be_enabled()
    await join(page)
    await until(lambda: bool(room.seats["client"].hellos))
    assert room.seats["client"].hellos[0]["media"] == {"audio": True, "video": False}


@pytest.mark.parametrize(
    ("kinds", "error", "words"),
    [
        (("audio", "video"), "NotAllowedError", "Your browser may not use the camera or microphone"),
        (("audio", "video"), "NotFoundError", "No microphone found"),
        (("audio", "video"), "NotReadableError", "Another program is using the microphone"),
    ],
)
async def test_without_any_device_nobody_starts_to_pay(
    visit: Visit, kinds: tuple[str, ...], error: str, words: str
) -> None:
    page = await visit("client", script=without(*kinds, error=error))
    await expect(page.locator("#media-notice")).to_contain_text(words)
    await expect(page.get_by_test_id("join")).to_be_disabled()
    await page.evaluate("window.allowed = true")
    await page.get_by_role("button", name="Try again").click()
    await expect(page.get_by_test_id("join")).to_be_enabled()
    await expect(page.locator("#media-notice")).to_be_hidden()


async def test_only_the_microphone_is_missing(visit: Visit) -> None:
    page = await visit("client", script=without("audio", error="NotAllowedError"))
    await expect(page.locator("#media-notice")).to_contain_text("so nobody would hear you")
    await expect(page.get_by_test_id("join")).to_be_enabled()


def payment(status: str, **fields: Any) -> dict[str, Any]:
    base = {"amount_held": 0, "card": {"brand": "visa", "last4": "0002"}, "action_url": None, "decline_code": None}
    return {"payment": {"status": status, **base, **fields}}


async def test_a_declined_card_says_so_and_a_second_card_works(visit: Visit, room: Room) -> None:
    room.entry["client"] = payment("failed", decline_code="insufficient_funds")
    page = await visit("client")
    await expect(page.locator("#payment-title")).to_have_text("Your card was declined")
    await expect(page.get_by_text("does not cover 75.00 USD")).to_be_visible()
    await expect(page.get_by_test_id("join")).to_be_disabled()
    room.entry["client"] = {}
    await expect(page.get_by_test_id("join")).to_be_enabled()
    await expect(page.locator("#payment-title")).to_be_hidden()
    await expect(page.get_by_test_id("status")).to_have_text("Ready when you are")


async def test_a_declined_card_leads_to_the_page_where_another_one_is_taken(visit: Visit, room: Room) -> None:
    room.entry["client"] = payment("failed") | {"pay_url": f"{room.origin}/pay#secret"}
    page = await visit("client", viewport={"width": 390, "height": 700})
    link = page.get_by_role("link", name="Use another card")
    await expect(page.get_by_test_id("status")).to_have_text("Your card was declined")
    await expect(link).to_be_in_viewport(ratio=1)
    await link.click(trial=True)
    assert await page.evaluate("scrollY") == 0, "nothing lies over it"
    await expect(link).to_have_attribute("href", f"{room.origin}/pay#secret")
    await expect(link).to_have_attribute("target", "_blank")
    room.entry["client"] = {}
    await expect(link).to_be_hidden()


async def test_a_card_that_needs_confirmation_leads_to_the_bank(visit: Visit, room: Room) -> None:
    room.entry["client"] = payment("action_required", action_url=f"{room.origin}/bank")
    page = await visit("client")
    link = page.get_by_role("link", name="Confirm with your bank")
    await expect(link).to_have_attribute("href", f"{room.origin}/bank")
    await expect(link).to_have_attribute("rel", "noopener")
    await expect(page.get_by_test_id("join")).to_be_disabled()


async def test_a_card_that_needs_confirmation_in_the_room(visit: Visit, room: Room) -> None:
    client, expert = await asyncio.gather(visit("client"), visit("expert"))
    await join(client, expert)
    await connected(client, expert)
    status = {"type": "status", "status": "created"}
    await room.say("client", {**status, **payment("action_required", action_url="/bank")})
    await expect(client.get_by_role("link", name="Confirm with your bank")).to_be_visible()
    await room.say("client", {**status, **payment("held")})
    await expect(client.get_by_role("link", name="Confirm with your bank")).to_be_hidden()


@pytest.mark.parametrize("missing", ["RTCPeerConnection", "indexedDB"])
async def test_a_browser_that_cannot(visit: Visit, missing: str) -> None:
    script = f"Object.defineProperty(window, '{missing}', {{ value: undefined }})"
    page = await visit("client", script=script)
    await expect(page.get_by_role("heading", name="This browser cannot make calls")).to_be_visible()


async def test_the_whole_call_by_keyboard(visit: Visit, room: Room) -> None:
    client, expert = await asyncio.gather(visit("client"), visit("expert"))
    await expect(client.get_by_test_id("join")).to_be_enabled()
    await tab_to(client, "join")
    await client.keyboard.press("Enter")
    await join(expert)
    await connected(client, expert)
    await expect(client.get_by_test_id("hangup")).to_be_focused()
    await client.keyboard.press("Shift+Tab")
    await client.keyboard.press("Enter")
    await expect(client.get_by_role("dialog", name="Devices")).to_be_visible()
    await client.keyboard.press("Escape")
    await expect(client.get_by_role("dialog", name="Devices")).to_be_hidden()
    await tab_to(client, "hangup")
    await client.keyboard.press("Space")
    await expect(client.get_by_test_id("summary")).to_be_visible()
    await tab_to(client, "rating-5")
    await client.keyboard.press("Enter")
    await until(lambda: bool(room.seats["client"].of("rate")))


async def tab_to(page: Page, test_id: str) -> None:
    for _ in range(40):
        if await page.evaluate("document.activeElement.dataset.testid") == test_id:
            return
        await page.keyboard.press("Tab")
    raise AssertionError(f"{test_id} cannot be reached by Tab")


NAMELESS = """() => [...document.querySelectorAll("button, a, select, input, textarea")]
  .filter((element) => element.checkVisibility())
  .filter((element) => !(element.ariaLabel || element.textContent.trim() && element.tagName !== "SELECT"
                         || element.labels?.[0]?.textContent.trim()))
  .map((element) => element.outerHTML)"""


async def test_every_control_has_a_name_on_every_screen(visit: Visit, room: Room) -> None:
    client, expert = await asyncio.gather(visit("client"), visit("expert"))
    await expect(client.get_by_test_id("join")).to_be_enabled()
    assert await client.evaluate(NAMELESS) == []
    await join(client, expert)
    await connected(client, expert)
    await client.get_by_role("button", name="Devices").click()
    assert await client.evaluate(NAMELESS) == []
    await client.get_by_test_id("hangup").click()
    await client.get_by_test_id("rating-3").click()
    assert await client.evaluate(NAMELESS) == []


async def test_nothing_is_loaded_from_anywhere_else(visit: Visit, room: Room) -> None:
    page = await visit("client", path="about:blank")
    origins: set[str] = set()
    page.on("request", lambda request: origins.add(request.url.split("/")[2] if "//" in request.url else "local"))
    await page.goto(room.link("client"))
    await expect(page.get_by_test_id("join")).to_be_enabled()
    assert origins - {"local"} == {room.origin.removeprefix("http://")}


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800), (844, 390), (320, 568)])
async def test_no_screen_is_wider_than_the_device(visit: Visit, room: Room, width: int, height: int) -> None:
    room.entry["client"] = {"peer": {"name": "A very long name of somebody with several surnames"}, "locale": "fr"}
    viewport = {"width": width, "height": height}
    client, expert = await asyncio.gather(visit("client", viewport=viewport), visit("expert"))
    await expect(client.get_by_test_id("join")).to_be_enabled()
    wide = "document.documentElement.scrollWidth > innerWidth"
    assert not await client.evaluate(wide)
    await join(client, expert)
    await connected(expert)
    await room.tick(1700)
    await room.tell({"type": "warning", "remaining": 60, "reason": "limit_ending"})
    assert not await client.evaluate(wide)
    await room.say("client", {"type": "continue", "state": "possible"})
    await expect(client.get_by_test_id("continue")).to_be_visible()
    agreed = "C’est convenu : vous poursuivez après cet appel"
    await client.get_by_test_id("continue").evaluate("(button, text) => (button.textContent = text)", agreed)
    for test_id in ("hangup", "mic", "camera", "timer", "amount", "continue"):
        await expect(client.get_by_test_id(test_id)).to_be_in_viewport(ratio=1)
    await expect(client.locator("#banner-close")).to_be_in_viewport(ratio=1)
    await room.finish("limit_reached")
    await expect(client.get_by_test_id("summary-total")).to_be_visible()
    assert not await client.evaluate(wide)
