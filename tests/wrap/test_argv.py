"""The command line of `taximeter run`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taximeter import wire
from taximeter.journal import text
from taximeter.wrap import helptext
from taximeter.wrap.argv import KNOWN, UsageError, inherit, name_fault, parse


def fault(*words: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse(list(words))
    return str(caught.value)


def test_everything_after_two_dashes_is_the_command() -> None:
    assert parse(["--worker", "--", "server", "--worker", "--"])[1] == ["server", "--worker", "--"]


def test_the_first_word_that_is_no_option_begins_the_command() -> None:
    assert parse(["--worker", "server", "--model", "m"])[1] == ["server", "--model", "m"]


def test_a_lone_dash_is_a_command() -> None:
    assert parse(["-", "x"])[1] == ["-", "x"]


@pytest.mark.parametrize("option", ["model", "version", "account", "pool", "prediction", "parent", "root"])
def test_a_name_is_taken_from_the_next_word_or_after_an_equals_sign(option: str) -> None:
    apart, joined = parse([f"--{option}", "a=b", "true"])[0], parse([f"--{option}=a=b", "true"])[0]
    assert getattr(apart, option) == getattr(joined, option) == "a=b"


@pytest.mark.parametrize("word", wire.CLASSES)
def test_every_service_class_is_known(word: str) -> None:
    assert parse(["--class", word, "true"])[0].service_class == word


@pytest.mark.parametrize("word", wire.ON_TERM)
def test_every_meaning_of_sigterm_is_known(word: str) -> None:
    assert parse([f"--on-term={word}", "true"])[0].on_term == word


def test_labels_may_be_repeated_and_their_texts_may_hold_anything() -> None:
    assert parse(["--label", "a=1", "--label=b=x=y", "--label", "c=", "true"])[0].labels == {
        "a": "1",
        "b": "x=y",
        "c": "",
    }


def test_units_keep_the_digits_they_were_given() -> None:
    assert parse(["--unit", "image=2", "--unit=second=0.50", "true"])[0].units == {"image": "2", "second": "0.50"}


@pytest.mark.parametrize("number", ["", "-1", "+1", "1e3", "nan", "inf", "1_0", "١", ".5", "1.", "0x1", "1" * 41])
def test_a_unit_that_is_no_plain_number_is_refused(number: str) -> None:
    assert "expected" in fault("--unit", f"image={number}", "true")


@pytest.mark.parametrize(("said", "ns"), [("30", 30_000_000_000), ("2.5", 2_500_000_000), ("0.000000001", 1)])
def test_a_timeout_is_seconds(said: str, ns: int) -> None:
    assert parse(["--ready-timeout", said, "true"])[0].ready_timeout_ns == ns


@pytest.mark.parametrize("said", ["0", "0.0", "-1", "soon", "1e3", "", ".5", "9" * 10])
def test_a_timeout_that_is_none_is_refused(said: str) -> None:
    assert "second" in fault("--ready-timeout", said, "true")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ([], "expected a command"),
        (["--"], "expected a command"),
        (["--worker"], "expected a command"),
        (["--model"], "expected a value"),
        (["--model", "--", "true"], "expected a value"),
        (["--model", "", "true"], "expected a name"),
        (["--model", "m" * 257, "true"], "at most 256"),
        (["--model", "a\nb", "true"], "printable"),
        (["--model", "a\x1b[1mb", "true"], "printable"),
        (["--model", "a\udcffb", "true"], "printable"),
        (["--worker=yes", "true"], "without a value"),
        (["--class", "vip", "true"], "public private fast_boot deployment training"),
        (["--on-term=retry", "true"], "canceled aborted drain"),
        (["--ready", "now", "true"], "expected exec, notify, http"),
        (["--label", "novalue", "true"], "KEY=VALUE"),
        (["--label", "a=b", "--label", "a=c", "true"], "cannot use --label: expected 'a' once"),
        (["--version"], "for that of Taximeter, `taximeter --version`"),
        (["--version", "--", "true"], "for that of Taximeter, `taximeter --version`"),
        (["--unit", "image", "true"], "NAME=NUMBER"),
        (["--unit", "image=1", "--unit", "image=2", "true"], "once"),
        (["--worker", "--prediction", "p", "true"], "as marks"),
        (["--worker", "--unit", "image=1", "true"], "as marks"),
    ],
)
def test_a_command_line_that_makes_no_sense_says_what_was_expected(words: list[str], part: str) -> None:
    assert part in fault(*words)


def test_at_most_64_labels_are_taken() -> None:
    words = [word for n in range(65) for word in ("--label", f"k{n}=v")]
    assert "at most 64" in fault(*words, "true")


def test_an_unknown_option_carries_its_word_for_a_guess() -> None:
    with pytest.raises(UsageError) as caught:
        parse(["--modle=x", "true"])
    assert helptext.guess(caught.value.unknown) == "--model"


def test_help_goes_before_every_fault() -> None:
    assert parse(["--model", "m", "--help", "--nonsense"])[0].help


@pytest.mark.parametrize("option", KNOWN)
def test_the_help_names_every_option(option: str) -> None:
    assert option == "--help" or f"  {option}" in helptext.TEXT


@pytest.mark.parametrize("line", helptext.TEXT.splitlines())
def test_no_line_of_the_help_is_wider_than_a_terminal(line: str) -> None:
    assert len(line) < 80


def test_what_is_said_goes_before_what_is_inherited() -> None:
    options, _ = parse(["--account", "said", "true"])
    inherit(options, "parent", None, "inherited")
    assert (options.account, options.parent, options.root) == ("said", "parent", None)


@pytest.mark.parametrize(
    ("said", "left", "kin"),
    [
        ("", ("a", "r"), ("a", "r")),
        ("", ("a", None), ("a", None)),
        ("", (None, "r"), (None, "r")),
        ("--parent a", ("a", "r"), ("a", "r")),
        ("--parent r", ("a", "r"), ("r", "r")),
        ("--parent x", ("a", "r"), ("x", None)),
        ("--root r", ("a", "r"), ("a", "r")),
        ("--root a", ("a", None), ("a", "a")),
        ("--root x", ("a", "r"), (None, "x")),
        ("--parent a --root x", ("a", "r"), ("a", "x")),
        ("--parent x --root r", ("a", "r"), ("x", "r")),
        ("--parent x", (None, None), ("x", None)),
    ],
)
def test_a_parent_and_a_root_are_inherited_together(
    said: str, left: tuple[str | None, str | None], kin: tuple[str | None, str | None]
) -> None:
    options, _ = parse([*said.split(), "true"])
    inherit(options, *left, None)
    assert (options.parent, options.root) == kin


def test_an_empty_variable_is_no_variable() -> None:
    options, _ = parse(["true"])
    inherit(options, "", "", "")
    assert (options.account, options.parent, options.root) == (None, None, None)


def test_an_inherited_account_that_is_no_name_is_refused_by_its_variable() -> None:
    with pytest.raises(UsageError, match="TAXIMETER_ACCOUNT"):
        inherit(parse(["true"])[0], None, None, "a\nb")


@given(st.text(st.characters(codec=None), max_size=300))
def test_a_name_is_fit_here_exactly_if_the_journal_s_reader_takes_it(value: str) -> None:
    try:
        text.name(value)
        taken = True
    except ValueError:
        taken = False
    assert (name_fault(value) is None) == taken


@given(st.from_regex(r"[0-9]{1,45}(\.[0-9]{1,45})?|[-+.0-9eE_]{0,12}", fullmatch=True))
def test_a_quantity_that_is_taken_here_is_taken_by_the_journal_s_reader(value: str) -> None:
    try:
        parse([f"--unit=image={value}", "true"])
    except UsageError:
        return
    assert text.quantity(value)


@given(st.lists(st.text(max_size=20), max_size=8))
def test_no_words_do_more_than_parse_or_raise_a_usage_error(words: list[str]) -> None:
    try:
        _, command = parse(words)
    except UsageError:
        return
    assert command == words[len(words) - len(command) :]
