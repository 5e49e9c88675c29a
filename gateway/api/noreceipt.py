"""What a person reads behind a receipt's link that opens nothing: a page in the language that the browser asks for."""

from __future__ import annotations

import re
from typing import Final

WORDS: Final = {
    "en": (
        "This link does not open a receipt",
        "It may have been cut off when it was copied. Open it again from your mail.",
    ),
    "de": (
        "Dieser Link öffnet keine Quittung",
        "Vielleicht wurde er beim Kopieren abgeschnitten. Öffnen Sie ihn noch einmal aus Ihrer Mail.",
    ),
    "fr": (
        "Ce lien n’ouvre aucun reçu",
        "Il a peut-être été coupé en le copiant. Ouvrez-le à nouveau depuis votre e-mail.",
    ),
    "es": ("Este enlace no abre ningún recibo", "Quizá se cortó al copiarlo. Ábralo de nuevo desde su correo."),
}
_QUALITY: Final = re.compile(r"\s*q=([01](?:\.\d{0,3})?)\s*")
_PAGE: Final = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>
body {{ display: grid; place-content: center; min-height: 100vh; margin: 0; padding: 24px; box-sizing: border-box;
  background: #f3f0e8; color: #17211d; font: 16px/1.5 system-ui, sans-serif; text-align: center; }}
main {{ max-width: 440px; }}
h1 {{ margin: 0 0 12px; font-size: 1.6rem; line-height: 1.25; letter-spacing: -.02em; text-wrap: balance; }}
p {{ margin: 0; color: #5a665f; }}
@media (prefers-color-scheme: dark) {{ body {{ background: #0c1110; color: #edf1ec; }} p {{ color: #9eaba3; }} }}
</style>
</head>
<body><main><h1>{title}</h1><p>{text}</p></main></body>
</html>
"""


def page(accept_language: str) -> str:
    """HTML without a script."""
    language = preferred(accept_language)
    title, text = WORDS[language]
    return _PAGE.format(language=language, title=title, text=text)


def preferred(accept_language: str) -> str:
    """Of our languages the one that the header weighs most (RFC 9110, 12.5.4); English where it names none."""
    wanted = [_weighed(part) for part in accept_language.split(",")]
    ours = [(weight, tag) for tag, weight in wanted if tag in WORDS and weight > 0]
    return max(ours, key=lambda one: one[0])[1] if ours else "en"


def _weighed(part: str) -> tuple[str, float]:
    tag, _, rest = part.strip().partition(";")
    quality = _QUALITY.fullmatch(rest)
    return tag.partition("-")[0].lower(), float(quality[1]) if quality else float(not rest)
