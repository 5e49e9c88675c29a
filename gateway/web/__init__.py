"""The browser's part: the SDK (`sdk/parley.js`) and the call page on top of it; this module says what is served where.

The files are served as they are, there is no build step. `HEADERS` belongs on every answer that carries one of them:
the page loads nothing from anywhere else, and the policy says so to the browser.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FOLDER: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Asset:
    """One file to serve: where it lies, and its `Content-Type`."""

    path: Path
    content_type: str


_HTML: Final = "text/html; charset=utf-8"
_CSS: Final = "text/css; charset=utf-8"
_SCRIPT: Final = "text/javascript; charset=utf-8"
_SVG: Final = "image/svg+xml"

FILES: Final[dict[str, Asset]] = {
    "/call": Asset(_FOLDER / "call.html", _HTML),
    "/static/call.css": Asset(_FOLDER / "call.css", _CSS),
    "/static/call.js": Asset(_FOLDER / "call.js", _SCRIPT),
    "/static/view.js": Asset(_FOLDER / "view.js", _SCRIPT),
    "/static/strings.js": Asset(_FOLDER / "strings.js", _SCRIPT),
    "/static/icon.svg": Asset(_FOLDER / "icon.svg", _SVG),
    "/sdk/parley.js": Asset(_FOLDER / "sdk" / "parley.js", _SCRIPT),
    # Browsers show a .d.ts as text; editors and bundlers go by its name.
    "/sdk/parley.d.ts": Asset(_FOLDER / "sdk" / "parley.d.ts", "text/plain; charset=utf-8"),
}
"""Every public path of this package."""


PAY_FILES: Final[dict[str, Asset]] = {
    "/pay": Asset(_FOLDER / "pay" / "pay.html", _HTML),
    "/pay/pay.css": Asset(_FOLDER / "pay" / "pay.css", _CSS),
    "/pay/pay.js": Asset(_FOLDER / "pay" / "pay.js", _SCRIPT),
    "/pay/words.js": Asset(_FOLDER / "pay" / "words.js", _SCRIPT),
    "/pay/icon.svg": Asset(_FOLDER / "icon.svg", _SVG),
}
"""The pay page's, served on its own origin only."""


def content_security_policy(signal_origin: str = "") -> str:
    """The call page's policy. `signal_origin` (`wss://host`) is needed only where the socket has another origin.

    `worker-src blob:` is for the SDK's timers, which have to keep time in a background tab.
    """
    connect = " ".join(filter(None, ["'self'", signal_origin]))
    return (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        f"media-src 'self' blob:; worker-src blob:; connect-src {connect}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


HEADERS: Final[dict[str, str]] = {
    "Content-Security-Policy": content_security_policy(),
    "Permissions-Policy": "camera=(self), microphone=(self), speaker-selection=(self), geolocation=(), payment=()",
    # The link's fragment never leaves the browser, but a path with a session in it should not either.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
"""Headers of every answer with one of these files."""
