"""The settings of a node: a TOML file, overridden by the environment, checked before anything starts.

Order, strongest first: what the command line set, `GATEWAY_GROUP__KEY`, plain `REDIS_URL` and `STRIPE_API_KEY`,
the file, the defaults. An unknown key anywhere is an error that names it. `config/gateway.toml` documents every key.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError
from pydantic_settings.sources import TomlConfigSettingsSource

from gateway.archive.places import BucketPlace
from gateway.billing_bridge.pricing import MINIMUM_MINOR
from gateway.errors import GatewayError
from gateway.payees.routes import COUNTRIES, MAIN

PREFIX = "GATEWAY_"
NESTED = "__"
PLAIN_NAMES = {"REDIS_URL": ("redis", "url"), "STRIPE_API_KEY": ("stripe", "api_key")}
# Bucket names as AWS has them; a prefix of plain folders.
S3_PLACE = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/([A-Za-z0-9._=-]+(?:/[A-Za-z0-9._=-]+)*))?/?")
URL_PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^@]*@")
# HMAC-SHA256 keys shorter than the hash weaken it (RFC 7518, section 3.2).
SIGNING_KEY_BYTES = 32
# One password of a leg that leaks lets its holder try secrets at home; these are out of reach.
TURN_SECRET_CHARS = 24

Port = Annotated[int, Field(ge=0, le=65535)]
Positive = Annotated[int, Field(gt=0)]
BasisPoints = Annotated[int, Field(ge=0, le=10_000)]
Currency = Annotated[str, Field(pattern="^(usd|gbp|eur|cad|chf)$")]
SettlementCurrency = Annotated[str, Field(pattern=f"^({'|'.join(MINIMUM_MINOR)})$")]
CountryCode = Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
PlatformName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,15}$")]

STRIPE_KEY = re.compile(r"[sr]k_(test|live)_[A-Za-z0-9_]+")
# Stripe's own are longer by a third; whoever guesses it tells us of payments that never were.
STRIPE_SECRET = re.compile(r"whsec_[A-Za-z0-9+/=_-]{24,}")


def _stripe_key(value: SecretStr) -> SecretStr:
    if not STRIPE_KEY.fullmatch(value.get_secret_value()):
        raise ValueError(
            "must be a secret or restricted key of Stripe (sk_test_…, sk_live_…, rk_test_…, rk_live_…): copy it from "
            "Stripe's Dashboard, Developers, API keys"
        )
    return value


def _stripe_secret(value: SecretStr) -> SecretStr:
    if not STRIPE_SECRET.fullmatch(value.get_secret_value()):
        raise ValueError(
            "must be the signing secret of a webhook endpoint at Stripe, whsec_ and at least 24 characters: copy it "
            "from Stripe's Dashboard, Developers, Webhooks"
        )
    return value


def _https(value: str) -> str:
    """Also an address in a private network may do without, so that a node can be tried from the next room."""
    host = urlsplit(value).hostname or ""
    if value.startswith("https:") or host == "localhost" or host.endswith(".localhost") or _private(host):
        return value
    raise ValueError(
        "must be https outside of localhost and private addresses, as browsers give neither camera nor microphone to a "
        "page on http: name the https origin of your TLS proxy"
    )


def _private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


StripeKey = Annotated[SecretStr, AfterValidator(_stripe_key)]
StripeSecret = Annotated[SecretStr, AfterValidator(_stripe_secret)]
Origin = Annotated[str, Field(pattern=r"^https?://[^/?#]+$"), AfterValidator(_https)]
PublishableKey = Annotated[str, Field(pattern=r"^(pk_(test|live)_[A-Za-z0-9]+)?$")]
Scope = Literal["sessions", "money", "read"]


class BadConfiguration(GatewayError):
    """The settings cannot be used. `problems` has one line for each fault, naming its key and never its value."""

    code = "bad_configuration"

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Server(Group):
    host: str = "127.0.0.1"
    port: Port = 8080
    private_host: str = "127.0.0.1"
    private_port: Port = 9090
    public_url: Origin = Field(default_factory=lambda known: f"http://localhost:{known.get('port', 8080)}")


class Media(Group):
    host: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104 - callers come from everywhere
    port: Port = 3478
    tcp_port: Port | None = None
    advertise: tuple[str, ...] = ()
    workers: Annotated[int, Field(ge=0, le=256)] = 0

    @field_validator("host", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("host", "advertise")
    @classmethod
    def _addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            ipaddress.ip_address(address)
        return value

    @model_validator(mode="after")
    def _ports(self) -> Self:
        if self.port and self.port + self.processes > 65_536:
            raise ValueError("each worker takes a port, counted up from port: there are not so many")
        return self

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        """A candidate of 0.0.0.0 reaches nobody, and behind a NAT the interfaces do not tell the right address."""
        if any(ipaddress.ip_address(host).is_unspecified for host in self.host) and not self.advertise:
            raise ValueError("advertise must name the addresses that callers reach when host is 0.0.0.0 or ::")
        return self

    @property
    def processes(self) -> int:
        """How many relay workers there are: `workers`, or as many as this process has cores."""
        return self.workers or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses to offer as ICE candidates, in order of preference."""
        return self.advertise or self.host


class TurnServers(Group):
    urls: tuple[Annotated[str, Field(pattern=r"^turns?:[^/?#@]+(\?transport=(udp|tcp))?$")], ...] = ()
    secret: SecretStr = SecretStr("")
    ttl_seconds: Annotated[int, Field(ge=600, le=86_400)] = 7_200

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if self.urls and len(self.secret.get_secret_value()) < TURN_SECRET_CHARS:
            raise ValueError(f"secret must have at least {TURN_SECRET_CHARS} characters when there are urls")
        return self


class Redis(Group):
    # Not a plain string: it may hold a password.
    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    partitions: Annotated[int, Field(ge=1, le=16384)] = 64
    waitaof_ms: Positive = 2000

    @property
    def shown(self) -> str:
        """The URL without its password."""
        return URL_PASSWORD.sub(r"\1:**********@", self.url.get_secret_value())


class Session(Group):
    limit_default_minutes: Annotated[int, Field(ge=1, le=90)] = 30
    cap_seconds: Annotated[int, Field(ge=1, le=5400)] = 5400
    warnings: tuple[Positive, ...] = (600, 300, 60, 30)
    free_warnings: tuple[Positive, ...] = (60, 10)
    lone_seconds: Positive = 120
    grace_seconds: Positive = 60
    expires_hours: Annotated[int, Field(ge=1, le=720)] = 24
    free_window_hours: Annotated[int, Field(ge=0, le=8760)] = 24
    flush_ms: Annotated[int, Field(ge=50, le=1000)] = 500
    rate_min_minor: Positive = 100
    rate_max_minor: Positive = 1500
    commission_bps: BasisPoints = 1000

    @field_validator("warnings", "free_warnings")
    @classmethod
    def _falling(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value), reverse=True):
            raise ValueError("must fall from the longest to the shortest, none twice")
        return value

    @model_validator(mode="after")
    def _range(self) -> Self:
        if self.rate_min_minor > self.rate_max_minor:
            raise ValueError("rate_min_minor must not be above rate_max_minor")
        return self


class Meter(Group):
    journal: Path | None = None


class PlatformAccount(Group):
    """Another platform account at Stripe, for experts whom the first one does not reach."""

    api_key: StripeKey
    webhook_secret: StripeSecret
    connect_webhook_secret: StripeSecret | None = None
    publishable_key: PublishableKey = ""
    country: CountryCode
    settlement_currency: SettlementCurrency | None = None
    currencies: Annotated[tuple[Currency, ...], Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _currency_known(self) -> Self:
        if self.settlement_currency is None and self.country not in COUNTRIES:
            raise ValueError("settlement_currency is required for a country that is not in the table")
        return self

    @property
    def settles_in(self) -> str:
        return self.settlement_currency or COUNTRIES[self.country].currency


class Stripe(Group):
    api_key: StripeKey
    api_base: str | None = Field(default=None, pattern=r"^https?://[^/?#]+$")
    webhook_secret: StripeSecret
    connect_webhook_secret: StripeSecret | None = None
    country: CountryCode = "US"
    recipient_countries: tuple[CountryCode, ...] = ()
    payout_weekday: Literal["monday", "tuesday", "wednesday", "thursday", "friday", ""] = "friday"
    platforms: Mapping[PlatformName, PlatformAccount] = Field(default_factory=dict)
    settlement_currency: SettlementCurrency = "usd"
    minimum_minor: Mapping[SettlementCurrency, Positive] = Field(default_factory=lambda: dict(MINIMUM_MINOR))
    foreign_margin_bps: BasisPoints = 6_000
    sole_gateway: bool = False
    requests_per_second: Annotated[int, Field(ge=0)] = 100
    requests_per_endpoint: Annotated[int, Field(ge=0)] = 25
    descriptor_prefix_length: Annotated[int, Field(ge=0, le=20)] = 10
    publishable_key: PublishableKey = ""
    js_url: str = Field(default="https://js.stripe.com/clover/stripe.js", pattern=r"^https?://[^?#]+$")

    @model_validator(mode="after")
    def _minimum_known(self) -> Self:
        if MAIN in self.platforms:
            raise ValueError(f"platforms: {MAIN} is the name of [stripe] itself")
        settling = {self.settlement_currency, *(platform.settles_in for platform in self.platforms.values())}
        if missing := sorted(settling - self.minimum_minor.keys()):
            raise ValueError(f"minimum_minor has no row for the settlement currency {missing[0]}")
        return self

    @model_validator(mode="after")
    def _one_mode(self) -> Self:
        for name, platform in self.platforms.items():
            if _moves_real_money(platform.api_key) is not self.livemode:
                raise ValueError(f"platforms.{name}.api_key is of another mode than the first account's")
        return self

    @property
    def livemode(self) -> bool:
        """Whether its keys move real money."""
        return _moves_real_money(self.api_key)


def _moves_real_money(key: SecretStr) -> bool:
    return key.get_secret_value().startswith(("sk_live_", "rk_live_"))


class Pay(Group):
    host: str = "127.0.0.1"
    port: Port = 0
    public_url: Origin = Field(default_factory=lambda known: f"http://localhost:{known.get('port', 0)}")

    @property
    def url(self) -> str:
        """Where clients find the page; empty where there is none."""
        return self.public_url if self.port else ""


class Mail(Group):
    host: str = "127.0.0.1"
    port: Port = 25
    username: str | None = None
    password: SecretStr | None = None
    starttls: bool = True
    sender: str = "Parley <receipts@localhost>"


class Issuer(Group):
    id: str = Field(default="default", pattern=r"^[a-z0-9_-]{1,32}$")
    name: str = "Parley"
    address: tuple[str, ...] = ()
    tax_id: str = ""
    support: str = ""


class WebhookEndpoint(Group):
    url: str = Field(pattern=r"^https?://")
    secret: SecretStr

    @field_validator("secret")
    @classmethod
    def _standard(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"whsec_[A-Za-z0-9+/]{32,}={0,2}", value.get_secret_value()):
            raise ValueError("must be whsec_ and at least 24 random bytes in base64 (Standard Webhooks)")
        return value


class Webhooks(Group):
    endpoints: tuple[WebhookEndpoint, ...] = ()
    allow_private: bool = False


class ApiKey(Group):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    account: str = Field(pattern=r"^acc_[A-Za-z0-9_]+$")
    scopes: tuple[Scope, ...] = ("sessions", "money", "read")
    livemode: bool = False


class Secrets(Group):
    signing_key: SecretStr

    @field_validator("signing_key")
    @classmethod
    def _long(cls, value: SecretStr) -> SecretStr:
        if len(value.get_secret_value().encode()) < SIGNING_KEY_BYTES:
            raise ValueError(f"must be at least {SIGNING_KEY_BYTES} bytes")
        return value


class Archive(Group):
    location: Annotated[str, Field(min_length=1)] | None = None
    endpoint: str | None = Field(default=None, pattern=r"^https?://[^/?#@]+$")
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,32}$")
    after_days: Annotated[int, Field(ge=1, le=366)] = 30
    every_minutes: Annotated[int, Field(ge=1, le=1440)] = 60
    per_second: Positive = 50

    @field_validator("location")
    @classmethod
    def _known_kind(cls, value: str | None) -> str | None:
        if value is not None and "://" in value and not S3_PLACE.fullmatch(value):
            raise ValueError("must be a directory, or s3://BUCKET or s3://BUCKET/PREFIX, without credentials")
        return value

    @property
    def place(self) -> Path | BucketPlace | None:
        """Where it is; None where there is none."""
        if self.location is None:
            return None
        found = S3_PLACE.fullmatch(self.location)
        return BucketPlace(found[1], found[2] or "", self.endpoint, self.region) if found else Path(self.location)


class Retention(Group):
    money_days: Positive = 3653
    people_days: Positive = 3653
    ticks_days: Positive = 90

    @model_validator(mode="after")
    def _money_longest(self) -> Self:
        if self.money_days < max(self.people_days, self.ticks_days):
            raise ValueError("money_days must not be below people_days or ticks_days: those hang on it")
        return self


class Log(Group):
    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(BaseSettings):
    """All settings, frozen. `Settings.load()` reads file and environment; the constructor takes the groups."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=NESTED,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    server: Server = Field(default_factory=Server)
    media: Media
    turn: TurnServers = Field(default_factory=TurnServers)
    redis: Redis = Field(default_factory=Redis)
    session: Session = Field(default_factory=Session)
    meter: Meter = Field(default_factory=Meter)
    stripe: Stripe
    pay: Pay = Field(default_factory=Pay)
    mail: Mail = Field(default_factory=Mail)
    issuer: Issuer = Field(default_factory=Issuer)
    webhooks: Webhooks = Field(default_factory=Webhooks)
    api_keys: tuple[ApiKey, ...] = ()
    secrets: Secrets
    archive: Archive = Field(default_factory=Archive)
    retention: Retention = Field(default_factory=Retention)
    log: Log = Field(default_factory=Log)

    @model_validator(mode="before")
    @classmethod
    def _name_missing_keys(cls, data: dict[str, Any]) -> dict[str, Any]:
        """So that an absent group is reported by its missing keys, not by the group's name alone."""
        return {"media": {}, "stripe": {}, "secrets": {}} | data

    @model_validator(mode="after")
    def _keys_of_one_mode(self) -> Self:
        """Or a session that says "test mode" would charge real cards, and one that says nothing would charge none."""
        for number, key in enumerate(self.api_keys):
            if key.livemode is not self.stripe.livemode:
                words = {True: "live", False: "test"}
                raise ValueError(
                    f"api_keys.{number} is a {words[key.livemode]} key, but stripe.api_key is a "
                    f"{words[self.stripe.livemode]} one: a gateway serves the one mode or the other"
                )
        return self

    @classmethod
    def load(cls, file: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
        """Read `file` and the environment under `overrides` (groups of keys). Raises BadConfiguration."""
        if file is not None:
            _readable(file)
        strangers = _unknown_variables(cls)
        if strangers:
            raise BadConfiguration(strangers)
        try:
            return _reading(file)(**dict(overrides or {}))
        except ValidationError as fault:
            raise BadConfiguration(list(_problems(cls, fault, file))) from None
        except SettingsError as fault:
            raise BadConfiguration([f"environment: {fault} (lists and tables are JSON: [600, 60])"]) from None

    def effective(self) -> dict[str, Any]:
        """What is in force, as plain values for printing: secrets are masked, URLs lose their passwords."""
        shown = self.model_dump(mode="json")
        shown["redis"]["url"] = self.redis.shown
        return shown


class PlainNames(PydanticBaseSettingsSource):
    """The two variables that every platform sets under their plain names."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        raise NotImplementedError  # the base class asks for it; __call__ below needs no single fields

    def __call__(self) -> dict[str, Any]:
        return {group: {key: os.environ[name]} for name, (group, key) in PLAIN_NAMES.items() if os.environ.get(name)}


def _reading(file: Path | None) -> type[Settings]:
    class FromFile(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            sources = (init_settings, env_settings, PlainNames(settings_cls))
            return sources if file is None else (*sources, TomlConfigSettingsSource(settings_cls, file))

    return FromFile


def _readable(file: Path) -> None:
    try:
        tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as fault:
        raise BadConfiguration([f"{file}: {fault.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise BadConfiguration([f"{file}: {fault}"]) from None


def _unknown_variables(model: type[Settings]) -> list[str]:
    """The environment source skips names it does not know; a typing error in one would go unseen."""
    names = [name for name in sorted(os.environ) if name.startswith(PREFIX)]
    known = {f"{PREFIX}{group.upper()}": group for group in model.model_fields}
    return [
        f"environment variable {name}: unknown{_guess(name.split(NESTED)[0], known)}"
        for name in names
        if name.split(NESTED)[0] not in known
    ]


def _problems(model: type[Settings], fault: ValidationError, file: Path | None) -> Iterable[str]:
    for error in fault.errors(include_url=False, include_context=False, include_input=False):
        path = [str(part) for part in error["loc"]]
        key = ".".join(path)
        where = _origin(path, file)
        if error["type"] == "extra_forbidden":
            yield f"{where}{key}: unknown key{_guess(path[-1], _siblings(model, path))}"
        elif error["type"] == "missing":
            yield f"{key}: required, and set neither in the file nor in the environment ({_variable(path)})"
        else:
            named = f"{key}: " if key else ""  # what several groups say together has no key
            yield f"{where}{named}{error['msg'].removeprefix('Value error, ')}"


def _variable(path: list[str]) -> str:
    return PREFIX + NESTED.join(path).upper()


def _origin(path: list[str], file: Path | None) -> str:
    if len(path) > 1 and _variable(path[:2]) in os.environ:
        return f"environment variable {_variable(path[:2])}: "
    return f"{file}: " if file else ""


def _siblings(model: type[BaseModel], path: list[str]) -> Iterable[str]:
    fields = model.model_fields
    if len(path) > 1 and path[0] in fields:
        group = fields[path[0]].annotation
        fields = group.model_fields if isinstance(group, type) and issubclass(group, BaseModel) else {}
    return fields


def _guess(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""
