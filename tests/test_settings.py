"""Settings: strict, overridable, and silent about secrets."""

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from gateway.archive.places import BucketPlace
from gateway.settings import BadConfiguration, Settings

SAMPLE = Path(__file__).parent.parent / "config" / "gateway.toml"
NEEDED = """
[media]
advertise = ["192.0.2.1"]
[stripe]
api_key = "sk_test_file"
webhook_secret = "whsec_file00000000000000000000"
[secrets]
signing_key = "0123456789abcdef0123456789abcdef"
"""
Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    for name in ("REDIS_URL", "STRIPE_API_KEY"):
        monkeypatch.delenv(name, raising=False)

    def load(more: str = "", needed: str = NEEDED, **environment: str) -> Settings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        file = tmp_path / "gateway.toml"
        file.write_text(needed + more)
        return Settings.load(file)

    return load


def problems(load: Load, *args: str, **environment: str) -> str:
    with pytest.raises(BadConfiguration) as caught:
        load(*args, **environment)
    return "\n".join(caught.value.problems)


def test_defaults_are_those_of_the_rules(load) -> None:
    session = load().session
    assert session.cap_seconds == 90 * 60
    assert session.commission_bps == 1000
    assert session.warnings == (600, 300, 60, 30)
    assert session.flush_ms == 500
    assert load().redis.waitaof_ms == 2000


def test_the_file_overrides_the_default_and_the_environment_the_file(load) -> None:
    more = "[session]\ncap_seconds = 100\nlone_seconds = 7\n"
    settings = load(more, GATEWAY_SESSION__CAP_SECONDS="60", GATEWAY_SESSION__WARNINGS="[20, 5]")
    assert settings.session.cap_seconds == 60
    assert settings.session.warnings == (20, 5)
    assert settings.session.lone_seconds == 7


def test_the_command_line_overrides_everything(load, tmp_path, monkeypatch) -> None:
    load()
    monkeypatch.setenv("GATEWAY_SERVER__PORT", "1")
    settings = Settings.load(tmp_path / "gateway.toml", {"server": {"port": 2}})
    assert settings.server.port == 2
    assert settings.server.public_url == "http://localhost:2"


def test_plain_names_are_understood_and_the_prefixed_ones_win(load) -> None:
    settings = load(REDIS_URL="redis://plain/0", STRIPE_API_KEY="sk_test_plain", GATEWAY_REDIS__URL="redis://own/0")
    assert settings.redis.url.get_secret_value() == "redis://own/0"
    assert settings.stripe.api_key.get_secret_value() == "sk_test_plain"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ("[session]\ncap_secnds = 1\n", "session.cap_secnds: unknown key (did you mean cap_seconds?)"),
        ("[sesion]\n", "sesion: unknown key (did you mean session?)"),
        ("[[api_keys]]\nsha256 = '00'\naccount = 'acc_1'\nrole = 1\n", "api_keys.0.role: unknown key"),
        (
            "[webhooks]\nendpoints = [{url = 'https://a', secret = 'whsec_1', x = 1}]\n",
            "webhooks.endpoints.0.x: unknown",
        ),
    ],
)
def test_an_unknown_key_is_an_error_that_names_it(load, more: str, named: str) -> None:
    assert named in problems(load, more)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("GATEWAY_SESION__CAP_SECONDS", "GATEWAY_SESION__CAP_SECONDS: unknown (did you mean GATEWAY_SESSION?)"),
        ("GATEWAY_SESSION__CAP_SECNDS", "GATEWAY_SESSION__CAP_SECNDS: session.cap_secnds: unknown key"),
    ],
)
def test_an_unknown_variable_is_an_error_that_names_it(load, name: str, named: str) -> None:
    assert named in problems(load, **{name: "1"})


def test_every_missing_key_is_named_at_once(load) -> None:
    said = problems(load, "", "")
    for key in ("stripe.api_key", "stripe.webhook_secret", "secrets.signing_key"):
        assert f"{key}: required" in said
    assert "advertise must name the addresses" in said


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ("[session]\ncap_seconds = 5401\n", "session.cap_seconds"),  # R6
        ("[session]\nlimit_default_minutes = 91\n", "session.limit_default_minutes"),  # R6
        ("[session]\nflush_ms = 1001\n", "session.flush_ms"),  # law 3: a crash costs at most a second
        ("[session]\nwarnings = [30, 60]\n", "session.warnings"),
        ("[session]\ncommission_bps = 10001\n", "session.commission_bps"),
        ("[session]\nrate_min_minor = 9\nrate_max_minor = 8\n", "session"),
        ("[server]\npublic_url = 'https://a.example/path'\n", "server.public_url"),
        ("[server]\npublic_url = 'http://calls.example.com'\n", "server.public_url: must be https"),
        ("[server]\npublic_url = 'http://8.8.8.8:8080'\n", "server.public_url: must be https"),
        ("[server]\npublic_url = 'http://localhost.example.com'\n", "server.public_url: must be https"),
        ("[pay]\npublic_url = 'http://pay.example.com'\n", "pay.public_url: must be https"),
        ("[webhooks]\nendpoints = [{url = 'https://a', secret = 'short'}]\n", "webhooks.endpoints.0.secret"),
        ("[[api_keys]]\nsha256 = 'pg_test_in_the_clear'\naccount = 'acc_1'\n", "api_keys.0.sha256"),
        ("[archive]\nafter_days = 0\n", "archive.after_days"),
        ("[archive]\nlocation = 'https://bucket.example'\n", "archive.location"),
        ("[archive]\nlocation = 's3://key:secret@calls'\n", "archive.location"),
        ("[archive]\nendpoint = 'https://key:secret@s3.example.com'\n", "archive.endpoint"),
        ("[retention]\nmoney_days = 3000\n", "retention"),  # people_days is longer
        ("[log]\nlevel = 'loud'\n", "log.level"),
    ],
)
def test_values_out_of_range_are_refused_by_key(load, more: str, key: str) -> None:
    assert f"gateway.toml: {key}" in problems(load, more)


@pytest.mark.parametrize("origin", ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "http://192.168.0.9"])
def test_an_origin_without_tls_is_for_this_machine_and_the_next_room(load, origin: str) -> None:
    assert load(f"[server]\npublic_url = '{origin}'\n").server.public_url == origin


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("sk_test_file", "hello"), "stripe.api_key: must be a secret or restricted key of Stripe"),
        (("sk_test_file", "sk_test_…"), "stripe.api_key: must be a secret or restricted key of Stripe"),
        (("sk_test_file", "pk_test_file"), "stripe.api_key: must be a secret or restricted key of Stripe"),
        (("whsec_file00000000000000000000", "whsec_x"), "stripe.webhook_secret: must be the signing secret"),
    ],
)
def test_what_is_no_key_of_stripes_is_refused_with_where_to_find_one(load, change: tuple[str, str], named: str) -> None:
    assert named in problems(load, "", NEEDED.replace(*change))


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("/var/lib/parley", Path("/var/lib/parley")),
        ("s3://calls", BucketPlace("calls", "", "https://s3.example.com", "eu-1")),
        ("s3://calls/a/b/", BucketPlace("calls", "a/b", "https://s3.example.com", "eu-1")),
    ],
)
def test_an_archive_is_in_a_directory_or_in_a_bucket(load, location: str, place: Path | BucketPlace) -> None:
    settings = load(f"[archive]\nlocation = '{location}'\nendpoint = 'https://s3.example.com'\nregion = 'eu-1'\n")
    assert settings.archive.place == place


PLATFORM = """
[stripe.platforms.au]
api_key = "sk_test_au"
webhook_secret = "whsec_au0000000000000000000000"
country = "AU"
"""


def test_r17_further_platform_accounts_are_read_with_their_countrys_currency(load) -> None:
    found = load(PLATFORM).stripe.platforms["au"]
    assert (found.country, found.settles_in, found.currencies) == ("AU", "aud", None)
    assert "sk_test_au" not in json.dumps(load(PLATFORM).effective())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("platforms.au", "platforms.main"), "main is the name of"),
        (('"AU"', '"NZ"'), "settlement_currency is required"),
        (('"AU"', '"AU"\ncurrencies = ["aud"]'), "stripe.platforms.au.currencies.0"),
        (("api_key", "apikey"), "stripe.platforms.au.api_key: required"),
        (("sk_test_au", "sk_live_au"), "platforms.au.api_key is of another mode"),
        (('"AU"', '"AU"\n[stripe.minimum_minor]\nusd = 50'), "no row for the settlement currency aud"),
    ],
)
def test_r17_a_platform_account_that_could_not_work_is_refused(load, change: tuple[str, str], named: str) -> None:
    assert named in problems(load, PLATFORM.replace(*change))


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_address_that_reaches_nobody_is_not_offered(load, host: str) -> None:
    needed = NEEDED.replace('advertise = ["192.0.2.1"]', f'host = "{host}"')
    assert "advertise must name" in problems(load, "", needed)


def test_media_on_one_address_offers_that_address(load) -> None:
    needed = NEEDED.replace('advertise = ["192.0.2.1"]', 'host = "192.0.2.7"')
    assert load("", needed).media.addresses == ("192.0.2.7",)
    assert load().media.addresses == ("192.0.2.1",)


def test_no_secret_is_shown_in_errors_repr_or_the_effective_settings(load) -> None:
    secrets = ["sk_test_file", "whsec_file00000000000000000000", "0123456789abcdef0123456789abcdef", "hunter2"]
    settings = load("[redis]\nurl = 'redis://user:hunter2@db:6379/0'\n[mail]\npassword = 'hunter2'\n")
    shown = json.dumps(settings.effective()) + repr(settings) + str(settings)
    assert "redis://user:**********@db:6379/0" in shown
    shown += problems(load, "[server]\nport = 'hunter2'\n[mail]\npassword = 7\n")
    assert [secret for secret in secrets if secret in shown] == []


def test_a_broken_file_is_named_with_the_line(load, tmp_path: Path) -> None:
    assert re.search(r"gateway\.toml: .*line 1", problems(load, "", "[session\n"))
    with pytest.raises(BadConfiguration, match=r"nowhere\.toml: No such file"):
        Settings.load(tmp_path / "nowhere.toml")


def test_a_list_that_is_no_json_is_explained(load) -> None:
    assert "JSON" in problems(load, GATEWAY_SESSION__WARNINGS="60,30")


def _keys(model: type[BaseModel]) -> dict[str, object]:
    """Every key with its default; groups as tables."""
    found: dict[str, object] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found[name] = _keys(kind)
        else:
            default = None if field.is_required() else field.get_default(call_default_factory=True, validated_data={})
            found[name] = default.get_secret_value() if isinstance(default, SecretStr) else default
    return found


def test_the_sample_names_every_key_and_tells_the_true_defaults() -> None:
    text = re.sub(r"(?m)^#(?=\[|[a-z_]+ =)", "", SAMPLE.read_text())
    sample = tomllib.loads(text)
    known = _keys(Settings)
    assert sample.keys() == known.keys()
    examples = {"public_url", "advertise", "api_base", "api_key", "webhook_secret", "username", "password", "address"}
    examples |= {
        "connect_webhook_secret",
        "signing_key",
        "endpoints",
        "journal",
        "tcp_port",
        "urls",
        "secret",
        "publishable_key",
        "location",
        "endpoint",
        "region",
    }
    for group, keys in known.items():
        if isinstance(keys, dict):
            assert sample[group].keys() == keys.keys()
            for key in keys.keys() - examples:
                default = keys[key]
                told = tuple(sample[group][key]) if isinstance(default, tuple) else sample[group][key]
                assert (key, told) == (key, default)


def test_the_sample_is_refused_until_its_secrets_are_filled_in() -> None:
    with pytest.raises(BadConfiguration, match="signing_key"):
        Settings.load(SAMPLE)


@pytest.mark.parametrize("stripe", ["sk_test_1", "sk_live_1", "rk_live_1"])
@pytest.mark.parametrize("ours", [True, False])
def test_a_test_key_never_charges_real_cards_nor_a_live_one_none(load, monkeypatch, stripe: str, ours: bool) -> None:
    monkeypatch.setenv("STRIPE_API_KEY", stripe)
    live = "_live_" in stripe
    keys = f"[[api_keys]]\nsha256 = '{'0' * 64}'\naccount = 'acc_1'\nlivemode = {str(ours).lower()}\n"
    if ours is live:
        assert load(keys).stripe.livemode is live
    else:
        assert "api_keys.0 is a" in problems(load, keys)
