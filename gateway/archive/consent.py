"""The words that a client agrees to when the call starts, as the call page showed them, by their version. Pure.

The page's own words (`gateway/web/strings.js`) may only change together with `TERMS_VERSION`: a consent is for good,
and so the words of each version stay here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

WORDS: Final[Mapping[str, Mapping[str, Mapping[str, str]]]] = {
    "1": {
        "en": {
            "paid": (
                "By starting you agree to pay {rate} a minute while you are both connected, counted by the "
                "second, and {amount} at most."
            ),
            "free_part": "The start is free: {minutes} min.",
            "nothing": "By starting you agree to a call that costs neither of you anything.",
            "booked": "This meeting is paid. It may last its full time from the moment you are both connected.",
            "always": "Interruptions are not charged. Nothing is recorded.",
        },
        "de": {
            "paid": (
                "Mit dem Start stimmen Sie zu: {rate} pro Minute, solange Sie beide verbunden sind, auf die "
                "Sekunde, höchstens {amount}."
            ),
            "free_part": "Der Anfang ist kostenlos: {minutes} Min.",
            "nothing": "Mit dem Start stimmen Sie einem Gespräch zu, das keinen von Ihnen etwas kostet.",
            "booked": (
                "Dieses Treffen ist bezahlt. Es dauert bis zu seiner vollen Zeit, sobald Sie beide verbunden sind."
            ),
            "always": "Unterbrechungen werden nicht berechnet. Nichts wird aufgezeichnet.",
        },
        "fr": {
            "paid": (
                "En commençant, vous acceptez de payer {rate} par minute tant que vous êtes tous deux connectés,"
                " à la seconde près, et {amount} au plus."
            ),
            "free_part": "Le début est gratuit : {minutes} min.",
            "nothing": "En commençant, vous acceptez un appel qui ne coûte rien à personne.",
            "booked": "Ce rendez-vous est payé. Il dure tout son temps dès que vous êtes tous deux connectés.",
            "always": "Les interruptions ne sont pas facturées. Rien n’est enregistré.",
        },
        "es": {
            "paid": (
                "Al empezar acepta pagar {rate} por minuto mientras ambos estén conectados, contado por "
                "segundos, y {amount} como máximo."
            ),
            "free_part": "El principio es gratis: {minutes} min.",
            "nothing": "Al empezar acepta una llamada que no cuesta nada a nadie.",
            "booked": "Esta reunión está pagada. Dura todo su tiempo desde que ambos estén conectados.",
            "always": "Las interrupciones no se cobran. No se graba nada.",
        },
    }
}


def agreed(session: Mapping[str, Any], money: str, most: str) -> str | None:
    """The words that the client of a session agreed to, with its figures: `money` a minute, `most` in all. None where
    there was no consent, or one to words that are not ours."""
    consent = session.get("consent")
    known = WORDS.get(consent["text_version"]) if consent else None
    if consent is None or known is None:
        return None
    words = known.get(consent["locale"][:2].lower(), known["en"])
    return " ".join(words[key] for key in _keys(session)).format(
        rate=money, amount=most, minutes=round(session["free_ms"] / 60_000)
    )


def _keys(session: Mapping[str, Any]) -> list[str]:
    """As the page chose them: a fee that was waived before is not shown; one that was waived later was agreed to."""
    waived = session.get("waived") and not session["consent"]["amount_max"]
    if session["kind"] not in ("metered", "booked") or not session["unit_amount"] or waived:
        return ["nothing", "always"]
    if session["kind"] == "booked":
        return ["booked", "always"]
    return ["paid", *(["free_part"] if session["free_ms"] else []), "always"]
