"""The pay page in a real Chromium: from the mail's link through a decline and the bank, and from the lobby."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, expect

from tests.integration.conftest import Stand, site, stand
from tests.integration.test_eligibility import restrict
from tests.integration.test_pay_page import due_page, lost

__all__ = ["site", "stand"]  # fixtures
# A machine that runs other tests beside these starves a browser for seconds.
PATIENCE_MS = 20_000
expect.set_options(timeout=PATIENCE_MS)
pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

WORDS = """async () => {
  const { LANGUAGES } = await import("/pay/words.js");
  const holes = (text) => (text.match(/\\{\\w+\\}/g) ?? []).sort().join();
  return Object.entries(LANGUAGES).flatMap(([name, words]) => [
    ...Object.keys(LANGUAGES.en).filter((key) => !words[key] || holes(words[key]) !== holes(LANGUAGES.en[key])),
    ...Object.keys(words).filter((key) => !(key in LANGUAGES.en)),
  ].map((key) => `${name}.${key}`));
}"""


async def opened(browser: Browser, link: str, faults: list[str]) -> Page:
    page = await (await browser.new_context()).new_page()

    def heard(line: ConsoleMessage) -> None:
        if "Content Security Policy" in line.text:
            faults.append(line.text)

    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", heard)
    await page.goto(link)
    return page


async def choose(page: Page, card: str) -> None:
    """Another card than those that the client keeps, if there are any."""
    if await page.get_by_test_id("pay-new").count():
        await page.get_by_test_id("pay-new").click()
    await page.frame_locator("#card iframe").get_by_test_id("card").select_option(card)
    await page.get_by_test_id("pay-submit").click()


async def test_a_due_bill_is_paid_by_its_client_alone(stand: Stand, browser: Browser) -> None:
    ident, faults = await lost(stand), list[str]()
    due = await due_page(stand)
    page = await opened(browser, f"{due.origin}/pay#{due.secret}", faults)
    await expect(page.get_by_test_id("pay-amount")).to_have_text("75.00 USD")
    await expect(page.get_by_test_id("pay-submit")).to_have_text("Pay 75.00 USD")
    assert page.url == f"{due.origin}/pay", "the secret does not stay in the address bar"
    await expect(page.get_by_test_id("pay-price")).to_contain_text("Billed time25:00 min")
    await expect(page.get_by_test_id("pay-kept")).to_have_text("Visa •••• 4242until 11/2030")
    assert await page.locator("iframe").count() == 0, "Stripe's script is loaded only when another card is asked for"
    await choose(page, "")
    await expect(page.get_by_test_id("pay-problem")).to_contain_text("incomplete")
    await choose(page, "pm_card_chargeDeclined")
    await expect(page.get_by_test_id("pay-problem")).to_contain_text("declined. Nothing was charged")
    await choose(page, "pm_card_authenticationRequired")
    await page.get_by_test_id("3ds-approve").click()
    await expect(page.get_by_test_id("pay-status")).to_have_text("Paid with Visa •••• 3184. Thank you.")
    await expect(page.get_by_test_id("pay-submit")).to_be_hidden()
    await expect(page.get_by_test_id("pay-receipt")).to_be_visible()
    assert await page.evaluate(WORDS) == []
    assert faults == []
    assert (await stand.settled(ident))["amount_captured"] == 7_500


async def test_r04_a_returning_client_pays_a_booking_with_one_click(stand: Stand, browser: Browser) -> None:
    first, faults = await stand.paid(card="pm_card_visa"), list[str]()
    terms = await stand.terms("pm_card_chargeDeclined", minutes=15, count=2)
    terms["client"]["stripe_customer"] = first["client"]["stripe_customer"]
    booking = await stand.post("/v1/bookings", terms)
    page = await opened(browser, booking["payment"]["pay_url"], faults)
    await expect(page.get_by_test_id("pay-price")).to_contain_text("Total450.00 USD")
    await expect(page.get_by_test_id("pay-problem")).to_contain_text("declined. Nothing was charged")
    await page.get_by_test_id("pay-submit").click()
    await expect(page.get_by_test_id("pay-status")).to_have_text("Paid with Visa •••• 4242. Thank you.")
    assert (await stand.get(f"/v1/bookings/{booking['id']}"))["status"] == "paid"
    assert faults == []


async def test_r04_from_the_lobby_another_card_opens_the_call(stand: Stand, browser: Browser) -> None:
    made, faults = await stand.paid(card="pm_card_chargeDeclined"), list[str]()
    lobby = await opened(browser, made["participants"]["client"]["url"], faults)
    async with lobby.context.expect_page() as waiting:
        await lobby.get_by_role("link", name="Use another card").click()
    page = await waiting.value
    page.on("pageerror", lambda error: faults.append(str(error)))
    await choose(page, "pm_card_mastercard")
    await expect(page.get_by_test_id("pay-status")).to_contain_text("Held on Mastercard •••• 4444")
    await expect(lobby.get_by_test_id("join")).to_be_enabled()
    assert faults == []


async def test_r16_the_page_says_that_nothing_was_held_for_an_expert_who_may_not_be_paid(
    stand: Stand, browser: Browser
) -> None:
    made, faults = await stand.paid(hold="join"), list[str]()
    await restrict(stand, True)
    page = await opened(browser, made["participants"]["client"]["url"], faults)
    await page.get_by_test_id("join").click()
    await expect(page.get_by_role("heading", name="takes no paid sessions at the moment")).to_be_visible()
    await expect(page.get_by_text("Nothing was held on your card")).to_be_visible()
    await restrict(stand, False)
    await page.reload()
    await page.get_by_test_id("join").click()
    held = await stand.until(made["id"], status="ready")
    assert held["payment"]["amount_held"] == 180_000
    assert faults == []


async def test_the_banks_way_back_shows_its_own_session_or_only_how_it_went(stand: Stand, browser: Browser) -> None:
    made = [await stand.paid(card="pm_card_authenticationRequired") for _ in range(3)]
    seen, asked, unseen = (one["payment"] for one in made)
    page = await opened(browser, seen["pay_url"], faults := list[str]())
    await page.get_by_test_id("pay-action").click()
    await page.get_by_test_id("3ds-approve").click()
    await expect(page.get_by_test_id("pay-status")).to_contain_text("Held on Visa")
    await page.goto(asked["pay_url"])
    await page.get_by_test_id("pay-action").click()
    await page.get_by_test_id("3ds-fail").click()
    await expect(page.get_by_test_id("pay-problem")).to_contain_text("declined. Nothing was charged")
    await page.goto(unseen["action_url"])
    await page.get_by_test_id("3ds-fail").click()
    refusal = page.get_by_role("heading", name="Your bank did not confirm the payment")
    await expect(refusal).to_be_visible()
    assert page.url.endswith("/pay"), "Stripe's client secret does not stay in the address bar"
    await page.reload()
    await expect(refusal).to_be_visible()
    await page.evaluate("(link) => location.assign(link)", seen["pay_url"])
    await expect(page.get_by_test_id("pay-status")).to_contain_text("Held on Visa")
    assert faults == []


async def test_a_way_back_without_a_secret_speaks_the_readers_language(stand: Stand, browser: Browser) -> None:
    page = await (await browser.new_context(locale="fr-FR")).new_page()
    await page.goto(f"{stand.running.settings.pay.url}/pay?session=ses_1&redirect_status=failed")
    await expect(page.get_by_role("heading", name="Votre banque n’a pas confirmé le paiement")).to_be_visible()


async def test_a_link_that_is_none_says_what_to_do(stand: Stand, browser: Browser) -> None:
    page = await opened(browser, f"{stand.running.settings.pay.url}/pay#nonsense", faults := list[str]())
    await expect(page.get_by_role("heading", name="This link does not work")).to_be_visible()
    elsewhere = await opened(browser, f"{stand.running.settings.pay.url}/pay?session=ses_1", faults)
    await expect(elsewhere.get_by_text("go back to your call")).to_be_visible()
    assert faults == []
