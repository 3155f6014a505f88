"""Configuration: what is wrong is named, all of it at once; the shipped files are the defaults."""

import os
import pwd
import tomllib
from decimal import Decimal
from pathlib import Path

import pytest

from taximeter.billing.classes import Quantity
from taximeter.billing.spending import Spending
from taximeter.config import directories, fingerprint, load, parse_catalogue
from taximeter.config.files import parse, read_shipped, shipped
from taximeter.errors import ConfigError
from taximeter.events import ServiceClass
from taximeter.wrap import places

ENVIRON = {"TAXIMETER_STATE_DIR": "/nowhere/state"}
ROOT = Path(__file__).parent.parent


@pytest.fixture
def agent_toml(tmp_path: Path) -> Path:
    path = tmp_path / "agent.toml"
    path.touch(mode=0o644)
    return path


def faults(path: Path, content: str | bytes) -> list[str]:
    """What is wrong with an agent.toml of this content, without the file's name."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigError) as caught:
        load(path, ENVIRON)
    return [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]


# The shipped files.


@pytest.mark.parametrize("name", ["agent.toml", "tiers.toml", "rates.toml", "models.json"])
def test_the_shipped_file_is_the_one_of_the_repository(name: str) -> None:
    assert shipped(name).read_bytes() == (ROOT / "config" / name).read_bytes()


def test_nothing_said_is_the_shipped_config(tmp_path: Path) -> None:
    config = load(None, {"TAXIMETER_STATE_DIR": str(tmp_path)})
    assert config.source == "agent.toml (shipped)"
    assert (config.listen.host, config.listen.port) == ("127.0.0.1", 9847)
    assert config.node.id is None
    assert config.billing.interim_s == 60
    assert config.marks.belief_ms == 50
    assert config.journal.owners == ("root", "self")
    assert [(sink.name, sink.type, sink.path) for sink in config.sinks] == [
        ("usage", "file", tmp_path / "usage.ndjson")
    ]


def test_the_shipped_classes_are_those_of_the_contract() -> None:
    def row(name: ServiceClass) -> list[str]:
        terms = load(None, ENVIRON).billing.classes.terms[name]
        columns = (terms.boot, terms.idle, terms.active, terms.teardown, terms.failed, terms.canceled, terms.aborted)
        assert terms.quantity is Quantity.SHARE
        return [str(cell) for cell in columns]

    only_active = ["0", "0", "1", "0", "1", "1", "0"]
    assert row(ServiceClass.PUBLIC) == row(ServiceClass.FAST_BOOT) == row(ServiceClass.TRAINING) == only_active
    assert row(ServiceClass.PRIVATE) == row(ServiceClass.DEPLOYMENT) == ["1", "1", "1", "0", "1", "1", "1"]


def test_every_commented_setting_of_the_shipped_file_is_a_known_one(agent_toml: Path, tmp_path: Path) -> None:
    for secret in ("billing.token", "nats.token", "models.key"):
        (tmp_path / secret).touch(mode=0o600)
    lines = []
    for line in shipped("agent.toml").read_text().splitlines():
        said = line.removeprefix("# ")
        is_setting = line.startswith("# ") and (
            said.startswith(("[[sinks]]", "[invoice.")) or (said[:1].isalpha() and said.split(" ")[1:2] == ["="])
        )
        lines.append(said if is_setting else line)
    text = "\n".join(lines).replace('tiers = "tiers.toml"', "").replace('rates = "rates.toml"', "")
    agent_toml.write_text(text)
    (tmp_path / "models.json").write_bytes(shipped("models.json").read_bytes())
    config = load(agent_toml, ENVIRON)
    assert config.node.id == "gpu-node-7"
    assert config.rate_card.models["Lumo"].unit == "prediction"
    assert config.invoice["USD"].places == 2
    assert config.price_list is not None
    assert (config.price_list.key_file, config.price_list.poll_s) == (tmp_path / "models.key", 300)
    assert config.node.region == "eu-west"
    assert [sink.name for sink in config.sinks] == ["usage", "billing", "stream"]


@pytest.mark.parametrize(
    ("slug", "price"),
    [
        ("cpu", "0.0001"),
        ("gpu-t4", "0.000225"),
        ("gpu-a40-small", "0.000575"),
        ("gpu-a40-large", "0.000725"),
        ("gpu-l40s", "0.000975"),
        ("gpu-2x-l40s", "0.00195"),
        ("gpu-8x-l40s", "0.0078"),
        ("gpu-a100-large", "0.0014"),
        ("gpu-a100-large-8x", "0.0112"),
        ("gpu-h100", "0.001525"),
        ("gpu-h100-4x", "0.0061"),
    ],
)
def test_a_tier_whose_price_is_known_ships_with_it(slug: str, price: str) -> None:
    assert load(None, ENVIRON).rate_card.tiers[slug] == Decimal(price)


def test_no_price_is_invented_where_none_is_known() -> None:
    config = load(None, ENVIRON)
    unpriced = {tier.slug for tier in config.catalogue.tiers} - config.rate_card.tiers.keys()
    sizes = ("", "-2x", "-4x", "-8x")
    assert unpriced == {f"{base}{size}" for base in ("gpu-a100-small", "gpu-h200") for size in sizes}
    assert any("gpu-h200-8x" in note for note in config.notes)


def test_every_price_has_a_tier_that_leads_to_it() -> None:
    config = load(None, ENVIRON)
    assert config.rate_card.tiers.keys() <= {tier.slug for tier in config.catalogue.tiers}


# What a file may change.


def test_a_file_says_only_what_differs(agent_toml: Path) -> None:
    agent_toml.write_text('[node]\nid = "n7"\n[billing.classes.private]\nboot = "0.5"\n')
    config = load(agent_toml, ENVIRON)
    assert config.node.id == "n7"
    assert config.billing.classes.terms[ServiceClass.PRIVATE].boot == Decimal("0.5")
    assert config.billing.classes.terms[ServiceClass.PRIVATE].idle == Decimal(1)
    assert config.billing.interim_s == 60


def test_sinks_that_are_listed_replace_the_shipped_one(agent_toml: Path) -> None:
    agent_toml.write_text('[[sinks]]\nname = "billing"\ntype = "http"\nurl = "https://billing.example/usage"\n')
    (sink,) = load(agent_toml, ENVIRON).sinks
    assert (sink.name, sink.url, sink.timeout_s, sink.gzip) == ("billing", "https://billing.example/usage", 10.0, False)


def test_a_file_sink_may_rotate(agent_toml: Path) -> None:
    agent_toml.write_text(FILE + "rotate_bytes = 1_048_576\nkeep = 10\n")
    (sink,) = load(agent_toml, ENVIRON).sinks
    assert (sink.rotate_bytes, sink.keep) == (1_048_576, 10)


def test_a_nats_sink_has_a_subject_and_may_have_a_user(agent_toml: Path, tmp_path: Path) -> None:
    (tmp_path / "password").touch(0o600)
    who = 'user = "node"\ntoken_file = "password"\n'
    agent_toml.write_text(NATS + 'url = "tls://nats.example"\nsubject = "taximeter.usage.{id}"\n' + who)
    (sink,) = load(agent_toml, ENVIRON).sinks
    assert (sink.url, sink.subject, sink.user) == ("tls://nats.example", "taximeter.usage.{id}", "node")
    assert sink.token_file == agent_toml.parent / "password"


def test_a_node_may_have_no_sink(agent_toml: Path) -> None:
    agent_toml.write_text("sinks = []\n")
    assert load(agent_toml, ENVIRON).sinks == ()


def test_tiers_and_rates_are_looked_for_beside_the_file_that_names_them(agent_toml: Path, tmp_path: Path) -> None:
    agent_toml.write_text('tiers = "mine.toml"\nrates = "prices.toml"\n')
    (tmp_path / "mine.toml").write_text('version = "1"\n[[tier]]\nslug = "cheap"\ntitle = "Cheap"\ncount = 0\n')
    (tmp_path / "prices.toml").write_text(
        'version = "1"\neffective = 2026-01-01T00:00:00Z\ncurrency = "EUR"\n[tiers]\ncheap = "0.01"\n'
    )
    config = load(agent_toml, ENVIRON)
    assert [tier.slug for tier in config.catalogue.tiers] == ["cheap"]
    assert config.rate_card.currency == "EUR"
    assert config.catalogue.source == str(tmp_path / "mine.toml")


def test_an_owner_is_a_name_a_number_or_the_agent_itself(agent_toml: Path) -> None:
    name = pwd.getpwuid(0).pw_name
    agent_toml.write_text(f'[journal]\nowners = ["{name}", 4711, "self"]\n')
    assert load(agent_toml, ENVIRON).journal.owner_uids == {0, 4711, os.geteuid()}


def test_anybody_may_own_a_journal_where_the_operator_says_so(agent_toml: Path) -> None:
    agent_toml.write_text('[journal]\nowners = ["any"]\n')
    assert load(agent_toml, ENVIRON).journal.owner_uids is None


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("0.0.0.0:80", "0.0.0.0", 80), ("[::1]:9847", "::1", 9847), ("localhost:0", "localhost", 0)],
)
def test_an_address_is_a_host_and_a_port(agent_toml: Path, address: str, host: str, port: int) -> None:
    agent_toml.write_text(f'[listen]\naddress = "{address}"\n')
    listen = load(agent_toml, ENVIRON).listen
    assert (listen.host, listen.port) == (host, port)


# Every kind of wrong.


def test_all_faults_of_all_three_files_are_named_at_once(agent_toml: Path, tmp_path: Path) -> None:
    (tmp_path / "tiers.toml").write_text('version = "1"\n[[tier]]\nslug = "X Y"\ntitle = "x"\ncount = 0\n')
    (tmp_path / "rates.toml").write_text('version = "1"\neffective = 1\ncurrency = "usd"\n[tiers]\ncpu = "0.1"\n')
    found = faults(agent_toml, 'tiers = "tiers.toml"\nrates = "rates.toml"\n[billing]\ninterim_s = 0\nintrim_s = 1\n')
    assert len([fault for fault in found if fault.startswith("billing.")]) == 2
    assert len([fault for fault in found if "tiers.toml: tier[0].slug" in fault]) == 1
    assert len([fault for fault in found if "rates.toml" in fault]) == 2


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ("invoice = 2", "invoice = 2: expected tables such as [invoice.USD]"),
        ("[invoice.usd]\nplaces = 2", "invoice.usd: expected an ISO 4217 code such as 'USD'"),
        ("[invoice.USD]\nplaces = 99", "invoice.USD.places = 99: expected a whole number from 0 to 18"),
    ],
)
def test_a_fault_of_the_rounding_of_invoices_is_named(agent_toml: Path, said: str, fault: str) -> None:
    assert faults(agent_toml, said) == [fault]


def test_models_of_a_second_file_may_be_toml_or_json(agent_toml: Path, tmp_path: Path) -> None:
    agent_toml.write_text('models = "more.toml"')
    (tmp_path / "more.toml").write_text('[[models]]\nname = "m"\namount = "1"\nunit = "image"\n')
    assert load(agent_toml, ENVIRON).rate_card.models["m"].unit == "image"
    agent_toml.write_text('models = "more.json"')
    (tmp_path / "more.json").write_text('{"data": [{"name": "m", "pricing": {"amount": 3e-05, "unit": "gpu"}}]}')
    assert str(load(agent_toml, ENVIRON).rate_card.models["m"].amount) == "0.00003"


def test_the_rate_card_itself_may_be_json(agent_toml: Path, tmp_path: Path) -> None:
    agent_toml.write_text('rates = "card.json"')
    (tmp_path / "card.json").write_text(
        '{"version": "v", "effective": "2026-01-01T00:00:00Z", "currency": "USD", "tiers": {"cpu": "0.1"}}'
    )
    assert load(agent_toml, ENVIRON).rate_card.version == "v"
    (tmp_path / "card.json").write_text("[]")
    assert faults(agent_toml, 'rates = "card.json"') == [f"{tmp_path}/card.json: a list: expected an object"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'[{"name": "m", "pricing": {"amount": NaN, "unit": "image"}}]', "[0].pricing.amount = NaN"),
        (b'[{"name": "m", "pricing": {"amount": 1, "amount": 2, "unit": "image"}}]', "[0].pricing.amount: said more"),
        (b'[{"name": "m", "pricing": {"amount": 1, "unit": "hour"}}]', "[0].pricing.unit = 'hour'"),
        (b"[\xff]", "byte 1 is not UTF-8"),
    ],
)
def test_a_fault_of_the_models_is_named_with_their_file(
    agent_toml: Path, tmp_path: Path, content: bytes, fault: str
) -> None:
    (tmp_path / "m.json").write_bytes(content)
    (found,) = faults(agent_toml, 'models = "m.json"')
    assert found.startswith(f"{tmp_path}/m.json: {fault}")


@pytest.mark.parametrize(
    "written", ["2026-01-01T00:00:00.0000001Z", "2026-01-01 00:00:00.0000011+01:00", "00:00:00.9999991"]
)
def test_an_instant_that_toml_would_cut_in_silence_is_refused_by_its_key(written: str) -> None:
    for content, key in ((f"a = 1\nb.c = {written}", "b.c"), (f"b = [{{c = {written}}}]", r"b\[0\].c")):
        with pytest.raises(ConfigError, match=f"rates.toml: {key}: finer than a microsecond: expected at most six"):
            parse(content.encode(), "rates.toml")


def test_a_text_a_comment_and_noughts_may_be_as_long_as_they_like() -> None:
    content = b'a = "at 00:00:00.1234567" # 00:00:00.1234567\nb = 2026-01-01T00:00:00.50000000Z\nc = 1.12345678'
    said = parse(content, "rates.toml")
    assert (said["a"], said["c"]) == ("at 00:00:00.1234567", Decimal("1.12345678"))
    assert str(said["b"]) == "2026-01-01 00:00:00.500000+00:00"


def test_an_unknown_key_is_named_with_the_one_that_was_meant(agent_toml: Path) -> None:
    assert faults(agent_toml, "[billing]\nintrim_s = 60\n") == [
        "billing.intrim_s = 60: expected a known key; did you mean `interim_s`?"
    ]


def test_an_unknown_table_is_named_with_the_known_ones(agent_toml: Path) -> None:
    (fault,) = faults(agent_toml, "[zzz]\na = 1\n")
    assert fault.startswith("zzz = {'a': 1}: expected one of the keys tiers, rates, models, node, listen")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[billing]\ninterim_s = 0", "billing.interim_s = 0: expected a whole number of seconds from 1 to 604800"),
        ("[billing]\ninterim_s = -5", "billing.interim_s = -5: expected a whole number of seconds from 1 to 604800"),
        ("[billing]\ninterim_s = true", "billing.interim_s = true: expected a whole number of seconds"),
        ("[billing]\ninterim_s = 1.5", "billing.interim_s = 1.5: expected a whole number of seconds"),
        (f"[billing]\ninterim_s = {2**63}", f"billing.interim_s = {2**63}: expected a whole number of seconds"),
        ("[journal]\npoll_s = nan", "journal.poll_s = NaN: expected a number of seconds from 0.01 to 3600"),
        ("[journal]\npoll_s = inf", "journal.poll_s = Infinity: expected a number of seconds"),
        ("[journal]\npoll_s = -inf", "journal.poll_s = -Infinity: expected a number of seconds"),
        ("[journal]\npoll_s = 1e999999", "journal.poll_s = 1E+999999: expected a number of seconds"),
        ("[journal]\npoll_s = 0", "journal.poll_s = 0: expected a number of seconds"),
        ('[journal]\npoll_s = "1"', "journal.poll_s = '1': expected a number of seconds"),
        ("[journal]\nowners = []", "journal.owners = []: expected a list of at least 1"),
        ("[journal]\nowners = 'root'", "journal.owners = 'root': expected a list"),
        ('[journal]\nowners = ["no-such-user"]', "journal.owners[0] = 'no-such-user': expected a user of this machine"),
        ('[listen]\naddress = "9847"', "listen.address = '9847': expected host:port such as"),
        (
            '[listen]\nunix = "http.sock"',
            "listen.unix = 'http.sock': expected an absolute path of at most 107 characters",
        ),
        ('[listen]\naddress = "h:99999"', "listen.address = 'h:99999': expected host:port such as"),
        ('[node]\nid = "a/b"', "node.id = 'a/b': expected a name of letters, digits"),
        ('[node]\nid = "a\\u001b[31m"', "node.id = 'a\\x1b[31m': expected a name of letters, digits"),
        ("node = 3", "node = 3: expected a table"),
        ("hardware = []", "hardware = []: expected a table"),
        ("[hardware]\nnvml = 1", "hardware.nvml = 1: expected true or false"),
        ("sinks = 3", "sinks = 3: expected tables that begin with [[sinks]], or [] for none"),
        ("sinks = [3]", "sinks[0] = 3: expected a table"),
        ("tiers = 2026-01-01", "tiers = 2026-01-01: expected a text of one line"),
        (
            '[billing.classes.public]\nidle = "-1"',
            "billing.classes.public.idle = '-1': expected a multiplier as a string",
        ),
        ('[billing.classes.public]\nidle = "1e9"', "billing.classes.public.idle = '1e9': expected a multiplier"),
        (
            "[billing.classes.public]\nidle = 0.5",
            "billing.classes.public.idle = 0.5: expected a multiplier as a string",
        ),
        (
            '[billing.classes.public]\nquantity = "shares"',
            "billing.classes.public.quantity = 'shares': expected one of ",
        ),
        ("[billing.classes.publick]\n", "billing.classes.publick = {}: expected a known key; did you mean `public`?"),
    ],
)
def test_a_wrong_value_is_named_with_key_value_and_expectation(agent_toml: Path, content: str, fault: str) -> None:
    (found,) = faults(agent_toml, content)
    assert found.startswith(fault)


FILE = '[[sinks]]\nname = "a"\ntype = "file"\npath = "x"\n'
HTTP = '[[sinks]]\nname = "a"\ntype = "http"\n'
NATS = '[[sinks]]\nname = "a"\ntype = "nats"\n'


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ('[[sinks]]\nname = "a"\ntype = "kafka"', "sinks[0].type = 'kafka': expected one of file, http, nats"),
        ('[[sinks]]\nname = "a"', "sinks[0].type: expected a value, there is none"),
        ('[[sinks]]\ntype = "file"\npath = "x"', "sinks[0].name: expected a value, there is none"),
        ('[[sinks]]\nname = "A b"\ntype = "file"\npath = "x"', "sinks[0].name = 'A b': expected a short name"),
        ('[[sinks]]\nname = "a"\ntype = "file"', "sinks[0].path: expected a value, there is none"),
        ('[[sinks]]\nname = "a"\ntype = "file"\npath = ""', "sinks[0].path = '': expected a text of one line"),
        ('[[sinks]]\nname = "a"\ntype = "file"\npath = "x"\nurl = "y"', "sinks[0].url = 'y': expected one of the keys"),
        (FILE + "rotate_bytes = 1000", "sinks[0].rotate_bytes = 1000: expected a whole number of bytes from 1048576"),
        (FILE + "rotate_bytes = 1048576\nkeep = 0", "sinks[0].keep = 0: expected a whole number of files from 1"),
        (FILE + "keep = 5", "sinks[0].keep = 5: expected `rotate_bytes` beside it"),
        (FILE + FILE.replace('"a"', '"b"').replace('"x"', '"x.1"'), "sinks[1].path = "),
        (HTTP, "sinks[0].url: expected a value, there is none"),
        (HTTP + 'url = "ftp://x"', "sinks[0].url = 'ftp://x': expected a URL such as"),
        (HTTP + 'url = "https://"', "sinks[0].url = 'https://': expected a URL such as"),
        (HTTP + 'url = "https://x:0x50/"', "sinks[0].url = 'https://x:0x50/': expected a URL such as"),
        (HTTP + 'url = "https://x/#part"', "sinks[0].url = 'https://x/#part': expected a URL such as"),
        (HTTP + 'url = "https://x/a b"', "sinks[0].url = 'https://x/a b': expected a URL such as"),
        (HTTP + 'url = "https://x/"\ntimeout_s = 0', "sinks[0].timeout_s = 0: expected a number of seconds"),
        (HTTP + 'url = "https://x/"\ntoken_file = "gone"', "sinks[0].token_file = "),
        (NATS + 'subject = "usage"', "sinks[0].url: expected a value, there is none"),
        (NATS + 'url = "nats://x"', "sinks[0].subject: expected a value, there is none"),
        (NATS + 'subject = "usage"\nurl = "https://x/"', "sinks[0].url = 'https://x/': expected a URL such as 'tls://"),
        (NATS + 'subject = "usage"\nurl = "nats://x/y"', "sinks[0].url = 'nats://x/y': expected a URL such as"),
        (NATS + 'subject = "usage"\nurl = "nats://[x"', "sinks[0].url = 'nats://[x': expected a URL such as"),
        (NATS + 'subject = "usage.*"\nurl = "nats://x"', "sinks[0].subject = 'usage.*': expected a subject such as"),
        (NATS + 'subject = "{id}"\nurl = "nats://x"', "sinks[0].subject = '{id}': expected a subject such as"),
        (NATS + 'subject = "u"\nurl = "nats://x"\nuser = "n"', "sinks[0].user = 'n': expected a `token_file` beside"),
        (NATS + 'subject = "u"\nurl = "nats://x"\ncreds_file = "no-such"', "sinks[0].creds_file = "),
        (NATS + 'subject = "u"\nurl = "nats://x"\ngzip = true', "sinks[0].gzip = true: expected one of the keys"),
    ],
)
def test_a_wrong_sink_is_named(agent_toml: Path, content: str, fault: str) -> None:
    (found,) = faults(agent_toml, content)
    assert found.startswith(fault)


def test_credentials_and_a_token_are_one_too_many(agent_toml: Path, tmp_path: Path) -> None:
    for name in ("token", "creds"):
        (tmp_path / name).touch(0o600)
    both = 'token_file = "token"\ncreds_file = "creds"'
    (fault,) = faults(agent_toml, NATS + 'subject = "u"\nurl = "nats://x"\n' + both)
    assert fault == "sinks[0].creds_file = 'creds': expected no `token_file` and no `user` beside it"


def test_two_sinks_of_one_name_are_refused(agent_toml: Path) -> None:
    sink = '[[sinks]]\nname = "a"\ntype = "file"\npath = "{}"\n'
    (fault,) = faults(agent_toml, sink.format("x") + sink.format("y"))
    assert fault.startswith("sinks[1].name = 'a': expected a name that no other sink has")


def test_two_sinks_of_one_file_are_refused(agent_toml: Path) -> None:
    sink = '[[sinks]]\nname = "{}"\ntype = "file"\npath = "{}"\n'
    (fault,) = faults(agent_toml, sink.format("a", "x") + sink.format("b", "./y/../x"))
    assert fault == "sinks[1].path = '/nowhere/state/y/../x': expected a file that no other sink writes to"


@pytest.mark.parametrize("path", ["ledger.db", "ledger.db-wal", "token", "agent.lock", "journal/x", "../state/token"])
def test_a_sink_cannot_write_to_the_agents_own_files(agent_toml: Path, path: str) -> None:
    (fault,) = faults(agent_toml, f'[[sinks]]\nname = "a"\ntype = "file"\npath = "{path}"')
    assert fault == f"sinks[0].path = '/nowhere/state/{path}': expected a file that is not the agent's own"


@pytest.mark.parametrize("path", ["journal.ndjson", "usage/ledger.db.ndjson", "/var/log/token"])
def test_a_sink_may_write_to_what_only_has_a_like_name(agent_toml: Path, path: str) -> None:
    agent_toml.write_text(f'[[sinks]]\nname = "a"\ntype = "file"\npath = "{path}"')
    (sink,) = load(agent_toml, ENVIRON).sinks
    assert sink.path == Path("/nowhere/state") / path


@pytest.mark.parametrize(
    "content",
    [
        HTTP + 'url = "https://x/"\ntoken = "hunter2"',
        HTTP + 'url = "https://x/"\npassword = "hunter2"',
        HTTP + 'url = "https://x/"\napi_key = "hunter2"',
        HTTP + 'url = "https://user:hunter2@x/"',
        HTTP + 'url = "https://hunter2@x/"',
        HTTP + 'url = "https://u:hunter2@x:port/"',
        NATS + 'subject = "usage"\nurl = "nats://hunter2@x"',
        '[listen]\naddress = "127.0.0.1:1"\nsecret = "hunter2"',
        'token = "hunter2"',
    ],
)
def test_a_secret_in_the_file_is_refused_with_the_remedy_and_never_repeated(agent_toml: Path, content: str) -> None:
    (fault,) = faults(agent_toml, content)
    assert "token_file" in fault
    assert "(not shown)" in fault
    assert "hunter2" not in fault


def test_a_token_that_others_can_read_is_refused(agent_toml: Path, tmp_path: Path) -> None:
    (tmp_path / "token").touch()
    (tmp_path / "token").chmod(0o644)
    (fault,) = faults(agent_toml, HTTP + 'url = "https://x/"\ntoken_file = "token"')
    assert fault.endswith("expected a file that others cannot read; its mode is 0644")


def test_a_file_that_everybody_may_write_is_refused(agent_toml: Path) -> None:
    agent_toml.chmod(0o666)
    assert faults(agent_toml, "") == ["mode 0666: expected a file that not everybody may write (chmod o-w)"]


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"\xef\xbb\xbf[node]\n", "begins with a byte order mark: expected plain UTF-8; save it without a BOM"),
        (b'[node]\nid = "\xff"\n', "byte 13 is not UTF-8: expected plain UTF-8"),
        (b"\x00\x01", "Invalid statement (at line 1, column 1): expected TOML"),
        (b"a = 1\na = 2\n", "Cannot overwrite a value (at line 2, column 6): expected TOML"),
        (b"a = " + b"[" * 5000 + b"]" * 5000, "nested too deeply: expected the few levels that the shipped file has"),
        (b"a = 2026-13-99\n", None),
        (b"[billing]\ninterim_s = " + b"9" * 5000, None),
        (b"a" + b".a" * 5000 + b" = 1\n", None),
        (b"#" * (2 << 20), f"{2 << 20} bytes: expected at most {1 << 20}"),
    ],
)
def test_a_file_that_is_no_toml_is_one_clear_fault(agent_toml: Path, content: bytes, fault: str | None) -> None:
    (found,) = faults(agent_toml, content)
    assert len(found) < 500
    assert fault is None or found == fault


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone.toml: No such file or directory: expected a readable TOML file"):
        load(tmp_path / "gone.toml", ENVIRON)


def test_a_directory_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").mkdir()
    with pytest.raises(ConfigError, match=r"agent\.toml: a directory: expected a TOML file"):
        load(tmp_path / "agent.toml", ENVIRON)


@pytest.mark.timeout(10)
def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "agent.toml")
    with pytest.raises(ConfigError, match="not a regular file: expected a TOML file"):
        load(tmp_path / "agent.toml", ENVIRON)


# tiers.toml.

TIER = {"slug": "gpu-x", "title": "X", "count": 1, "names": ["NVIDIA X"]}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"slug": "unknown"}, "tiers: tier[0].slug = 'unknown': expected another slug"),
        ({"slug": "GPU"}, "tiers: tier[0].slug = 'GPU': expected a slug such as"),
        ({"count": -1}, "tiers: tier[0].count = -1: expected a whole number of devices from 0 to 64"),
        ({"count": 0}, "tiers: tier[0].names = ['NVIDIA X']: expected no condition on devices where `count` is 0"),
        ({"names": []}, "tiers: tier[0].names = []: expected a list of at least 1"),
        ({"names": [""]}, "tiers: tier[0].names[0] = '': expected a text of one line"),
        ({"memory_mib": {}}, "tiers: tier[0].memory_mib = {}: expected `min`, `max` or both"),
        (
            {"memory_mib": {"min": 2, "max": 1}},
            "tiers: tier[0].memory_mib = {'max': 1, 'min': 2}: expected `min` not above",
        ),
        (
            {"memory_mib": {"minimum": 2}},
            "tiers: tier[0].memory_mib.minimum = 2: expected a known key; did you mean `min`?",
        ),
        ({"memory_mib": 4}, "tiers: tier[0].memory_mib = 4: expected a table"),
        ({"pci": ["10de2330"]}, "tiers: tier[0].pci[0] = '10de2330': expected a PCI device id of four hex digits"),
        ({"compute": ["9"]}, "tiers: tier[0].compute[0] = '9': expected a compute capability such as"),
        ({"cuont": 2}, "tiers: tier[0].cuont = 2: expected a known key; did you mean `count`?"),
    ],
)
def test_a_wrong_rule_is_named(changes: dict[str, object], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_catalogue({"version": "1", "tier": [{**TIER, **changes}]}, "tiers")
    assert caught.value.faults[0].startswith(fault)


def test_a_rule_that_any_device_would_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected `names` or `pci` beside it, or any device would fit"):
        parse_catalogue({"version": "1", "tier": [{"slug": "x", "title": "X", "count": 1}]}, "tiers")


def test_a_catalogue_without_rules_is_refused() -> None:
    with pytest.raises(ConfigError, match="tier: expected a value, there is none"):
        parse_catalogue({"version": "1"}, "tiers")


# Where files and directories are.


def test_the_named_file_comes_before_that_of_the_environment(agent_toml: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text('[node]\nid = "other"\n')
    agent_toml.write_text('[node]\nid = "named"\n')
    assert load(agent_toml, {"TAXIMETER_CONFIG": str(other)}).node.id == "named"
    assert load(None, {"TAXIMETER_CONFIG": str(other)}).node.id == "other"


def test_the_state_directory_may_hold_the_config(tmp_path: Path) -> None:
    (tmp_path / "agent.toml").write_text('[node]\nid = "mine"\n')
    assert load(None, {"TAXIMETER_STATE_DIR": str(tmp_path)}).node.id == "mine"


@pytest.mark.parametrize(
    ("environ", "state", "run"),
    [
        ({"TAXIMETER_STATE_DIR": "/s"}, "/s", "/s/run"),
        ({"TAXIMETER_STATE_DIR": "/s", "TAXIMETER_RUN_DIR": "/r"}, "/s", "/r"),
        ({"XDG_STATE_HOME": "/x"}, "/x/taximeter", "/x/taximeter/run"),
        ({"HOME": "/h"}, "/h/.local/state/taximeter", "/h/.local/state/taximeter/run"),
        ({"HOME": "/h", "XDG_STATE_HOME": ""}, "/h/.local/state/taximeter", "/h/.local/state/taximeter/run"),
    ],
)
def test_directories_follow_the_environment(
    environ: dict[str, str], state: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taximeter.wire.SYSTEM_STATE_DIR", "/nowhere")
    found = directories(environ)
    assert (found.state, found.run, found.journal) == (Path(state), Path(run), Path(state, "journal"))


def test_the_system_directories_are_used_where_its_journal_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taximeter.wire.SYSTEM_STATE_DIR", str(tmp_path))
    (tmp_path / "journal").mkdir()
    found = directories({"HOME": "/h"})
    assert (found.state, found.run) == (tmp_path, Path("/run/taximeter"))


@pytest.mark.parametrize("state_dir", [None, "", "/s", "relative"])
@pytest.mark.parametrize("run_dir", [None, "", "/r"])
@pytest.mark.parametrize("xdg", [None, "", "/x"])
@pytest.mark.parametrize("home", [None, "", "/h"])
@pytest.mark.parametrize("is_system", [False, True])
def test_the_wrapper_has_the_same_rule_for_directories(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    state_dir: str | None,
    run_dir: str | None,
    xdg: str | None,
    home: str | None,
    is_system: bool,
) -> None:
    monkeypatch.setattr("taximeter.wire.SYSTEM_STATE_DIR", str(tmp_path / "system"))
    if is_system:
        (tmp_path / "system" / "journal").mkdir(parents=True)
    said = {"TAXIMETER_STATE_DIR": state_dir, "TAXIMETER_RUN_DIR": run_dir, "XDG_STATE_HOME": xdg, "HOME": home}
    environ = {name: value for name, value in said.items() if value is not None}
    found = directories(environ)
    assert (str(found.state), str(found.run)) == places.directories(environ)


def test_the_systems_config_comes_before_that_of_the_state_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "etc.toml"
    monkeypatch.setattr("taximeter.wire.SYSTEM_CONFIG", str(system))
    (tmp_path / "agent.toml").write_text('[node]\nid = "state"\n')
    environ = {"TAXIMETER_STATE_DIR": str(tmp_path)}
    assert load(None, environ).node.id == "state"
    system.write_text('[node]\nid = "system"\n')
    assert load(None, environ).node.id == "system"


# The fingerprint.


def test_a_fingerprint_is_the_same_wherever_the_same_settings_come_from(agent_toml: Path) -> None:
    assert fingerprint(load(agent_toml, ENVIRON)) == fingerprint(load(None, ENVIRON))


@pytest.mark.parametrize(
    "content", ["[billing]\ninterim_s = 61", '[billing.classes.public]\nidle = "0.5"', 'rates = "rates.toml"']
)
def test_a_fingerprint_changes_with_any_setting_tier_or_price(agent_toml: Path, tmp_path: Path, content: str) -> None:
    prices = shipped("rates.toml").read_text().replace('cpu = "0.000100"', 'cpu = "0.000101"')
    (tmp_path / "rates.toml").write_text(prices)
    agent_toml.write_text(content)
    assert fingerprint(load(agent_toml, ENVIRON)) != fingerprint(load(None, ENVIRON))


def test_what_goes_into_the_ledger_is_plain_json_of_what_is_in_force(agent_toml: Path) -> None:
    agent_toml.write_text("[journal]\npoll_s = 0.25\n")
    config = load(agent_toml, ENVIRON)
    expected = {"owners": ["root", "self"], "poll_s": "0.25", "open_per_owner": 10_000, "when_full": "unknown"}
    assert config.content["journal"] == expected
    assert parse_catalogue(config.tiers_content, "again").tiers == config.catalogue.tiers


def test_the_shipped_files_are_plain_toml() -> None:
    for name in ("agent.toml", "tiers.toml", "rates.toml"):
        assert tomllib.loads(shipped(name).read_text()).keys() == read_shipped(name).keys()


# What accounts spend.


def test_nobody_is_charged_early_or_refused_by_default() -> None:
    config = load(None, ENVIRON)
    assert config.spending == Spending()
    assert not config.refuse_without_agent


SPENDING = """
[charges]
thresholds = ["100", "10.50"]
[charges.accounts]
cus_7 = ["5"]
"a.b c" = []
[credit]
prepaid = ["cus_7", "cus_8"]
floor = "-2"
without_agent = "refuse"
[credit.caps]
cus_7 = "0"
[credit.limits]
cus_7 = { "acme/sdxl" = "25" }
"""


def test_thresholds_credit_caps_and_limits_are_read_as_exact_numbers(agent_toml: Path) -> None:
    agent_toml.write_text(SPENDING)
    config = load(agent_toml, ENVIRON)
    thresholds, credit = config.spending.thresholds, config.spending.credit
    assert thresholds.default == (Decimal("10.50"), Decimal(100))
    assert thresholds.accounts == {"cus_7": (Decimal(5),), "a.b c": ()}
    assert (credit.prepaid, credit.floor) == ({"cus_7", "cus_8"}, Decimal(-2))
    assert (credit.caps, credit.limits) == ({"cus_7": 0}, {"cus_7": {"acme/sdxl": 25}})
    assert config.refuse_without_agent


def test_on_a_full_disk_runs_start_all_the_same_unless_they_are_to_be_refused(agent_toml: Path) -> None:
    assert load(None, ENVIRON).journal.when_full == "unknown"
    agent_toml.write_text('[journal]\nwhen_full = "refuse"\n')
    assert load(agent_toml, ENVIRON).journal.when_full == "refuse"


def test_everybody_may_pay_in_advance(agent_toml: Path) -> None:
    agent_toml.write_text('[credit]\nprepaid = "all"\n')
    assert load(agent_toml, ENVIRON).spending.credit.prepaid is None


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("[charges]\nthresholds = [10]", "charges.thresholds[0] = 10: expected an amount above 0 as a string"),
        ("[charges]\nthresholds = ['0.0']", "charges.thresholds[0] = '0.0': expected an amount above 0"),
        ("[charges]\nthresholds = '5'", "charges.thresholds = '5': expected a list"),
        ("[charges.accounts]\ncus_7 = ['x']", "charges.accounts.cus_7[0] = 'x': expected an amount above 0"),
        ("[charges]\naccounts = 3", "charges.accounts = 3: expected a table"),
        ("[charges.accounts]\n'' = ['1']", "expected a name of 1 to 256 characters"),
        ("[credit]\nprepaid = 'some'", "credit.prepaid = 'some': expected 'none', 'all', or a list of accounts"),
        ("[credit]\nprepaid = ['']", "credit.prepaid = ['']: expected a name of 1 to 256 characters"),
        ("[credit]\nfloor = '1e3'", "credit.floor = '1e3': expected an amount, which may be negative,"),
        ("[credit]\nwithout_agent = 'deny'", "credit.without_agent = 'deny': expected one of admit, refuse"),
        ("[journal]\nwhen_full = 'drop'", "journal.when_full = 'drop': expected one of unknown, refuse"),
        ("[credit.caps]\ncus_7 = '-1'", "credit.caps.cus_7 = '-1': expected an amount as a string"),
        ("[credit.limits.cus_7]\nm = 1.5", "credit.limits.cus_7.m = 1.5: expected an amount as a string"),
        ("[credit.limits]\ncus_7 = '1'", "credit.limits.cus_7 = '1': expected a table"),
    ],
)
def test_what_is_wrong_with_charges_and_credit_is_named(agent_toml: Path, content: str, fault: str) -> None:
    (found,) = faults(agent_toml, content)
    assert fault in found
