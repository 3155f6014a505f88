"""The command line of `taximeter run`: a list of words to options and a command.

Owns which options there are and what each may say. Parsed by hand, because argparse alone costs as much as starting
Python. Refuses to know files, clocks and processes; the help and the guesses at a misspelt option are in helptext.py,
which only those pay for who need it.
"""

from taximeter import wire

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable

READY_NOW = ("exec", "notify")
_NS_PER_S = 1_000_000_000
_MAX_TIMEOUT_DIGITS = 9
_MAX_QUANTITY_DIGITS = 40
_MAX_ENTRIES = 64
#: What breaks a line or a terminal, or makes two names look alike: the journal's reader refuses it too.
_UNFIT = frozenset(
    (*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)
)
_SURROGATES = range(0xD800, 0xE000)


class UsageError(Exception):
    """A command line that cannot be understood; its text says what was expected."""


class UnknownOption(UsageError):
    """A word that looks like an option and is none; `word` is that word."""

    def __init__(self, word: str) -> None:
        super().__init__(f"unknown option {word}")
        self.word = word


class Options:
    """What `taximeter run` was told; None is left open, for marks to set."""

    def __init__(self) -> None:
        self.help = False
        self.worker = False
        self.summary = False
        self.require_meter = False
        self.model: str | None = None
        self.version: str | None = None
        self.account: str | None = None
        self.service_class: str | None = None
        self.pool: str | None = None
        self.prediction: str | None = None
        self.parent: str | None = None
        self.root: str | None = None
        self.on_term = wire.ON_TERM[0]
        self.ready = READY_NOW[0]
        self.ready_timeout_ns: int | None = None
        self.labels: dict[str, str] = {}
        self.units: dict[str, str] = {}


FLAGS = {"--worker": "worker", "--summary": "summary", "--require-meter": "require_meter"}
NAMES = {
    "--model": "model",
    "--version": "version",
    "--account": "account",
    "--pool": "pool",
    "--prediction": "prediction",
    "--parent": "parent",
    "--root": "root",
}


def parse(words: list[str]) -> tuple[Options, list[str]]:
    """Return the options and the command. Raises UsageError; where help is asked for, nothing else is checked."""
    options = Options()
    at = 0
    while at < len(words):
        word, joined, value = words[at].partition("=")
        at += 1
        if word == "--" and not joined:
            break
        if not word.startswith("-") or word == "-":
            at -= 1
            break
        if word in ("--help", "-h"):
            options.help = True
            return options, []
        if word in FLAGS:
            if joined:
                raise UsageError(f"cannot use {words[at - 1]}: expected {word} without a value")
            setattr(options, FLAGS[word], True)
            continue
        setter = _setter(word)
        if not joined:
            if at == len(words) or words[at] == "--":
                raise UsageError(f"cannot use {word}: expected a value after it")
            value = words[at]
            at += 1
        setter(options, word, value)
    return options, _checked(options, words[at:])


def inherit(options: Options, parent: str | None, root: str | None, account: str | None) -> None:
    """Take from the environment what a run around this one left there; what was said here goes before it."""
    options.parent = options.parent or _inherited(wire.ENV_PARENT, parent)
    options.root = options.root or _inherited(wire.ENV_ROOT, root)
    options.account = options.account or _inherited(wire.ENV_ACCOUNT, account)


def name_fault(value: str) -> str | None:
    """What is wrong with a name, or None; the same rule as the journal's reader has."""
    if not value:
        return "expected a name, got an empty word"
    if len(value) > wire.NAME_MAX_CHARS:
        return f"expected at most {wire.NAME_MAX_CHARS} characters, got {len(value)}"
    if not (value.isascii() and value.isprintable()):
        for char in value:
            if ord(char) in _UNFIT or ord(char) in _SURROGATES:
                return f"expected printable UTF-8, got {value!a}"
    return None


def _checked(options: Options, command: list[str]) -> list[str]:
    if not command:
        raise UsageError("cannot run nothing: expected a command after the options, as in `taximeter run -- CMD ARG`")
    if options.worker and options.prediction is not None:
        raise UsageError("cannot use --prediction with --worker: expected a worker's predictions to come as marks")
    if options.worker and options.units:
        raise UsageError("cannot use --unit with --worker: expected a worker's units to come as marks")
    return command


def _inherited(variable: str, value: str | None) -> str | None:
    if not value:
        return None
    fault = name_fault(value)
    if fault:
        raise UsageError(f"cannot use the environment variable {variable}: {fault}")
    return value


def _set_name(options: Options, word: str, value: str) -> None:
    fault = name_fault(value)
    if fault:
        raise UsageError(f"cannot use {word}: {fault}")
    setattr(options, NAMES[word], value)


def _set_choice(word: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise UsageError(f"cannot use {word} {value!a}: expected one of {' '.join(choices)}")
    return value


def _set_class(options: Options, word: str, value: str) -> None:
    options.service_class = _set_choice(word, value, wire.CLASSES)


def _set_on_term(options: Options, word: str, value: str) -> None:
    options.on_term = _set_choice(word, value, wire.ON_TERM)


def _set_ready(options: Options, word: str, value: str) -> None:
    if value.startswith(("http://", "https://", "tcp:", "log:")):
        raise UsageError(
            f"cannot wait for {word} {value!a} in this version: expected exec or notify"
            ' (a worker can also write {"mark":"ready"} to $TAXIMETER_MARKS)'
        )
    options.ready = _set_choice(word, value, READY_NOW)


def _set_timeout(options: Options, word: str, value: str) -> None:
    whole, _, fraction = value.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit() and whole and len(whole) <= _MAX_TIMEOUT_DIGITS):
        raise UsageError(f"cannot use {word} {value!a}: expected seconds, as in 30 or 2.5")
    options.ready_timeout_ns = int(whole) * _NS_PER_S + int(fraction[:9].ljust(9, "0"))
    if options.ready_timeout_ns == 0:
        raise UsageError(f"cannot use {word} {value!a}: expected more than zero seconds")


def _set_label(options: Options, word: str, value: str) -> None:
    key, joined, text = value.partition("=")
    fault = None if joined else f"expected KEY=VALUE, got {value!a}"
    fault = fault or name_fault(key) or (name_fault(text) if text else None)
    if fault or (key not in options.labels and len(options.labels) == _MAX_ENTRIES):
        raise UsageError(f"cannot use {word}: {fault or f'expected at most {_MAX_ENTRIES} labels'}")
    options.labels[key] = text


def _set_unit(options: Options, word: str, value: str) -> None:
    name, joined, quantity = value.rpartition("=")
    fault = None if joined else f"expected NAME=NUMBER, got {value!a}"
    fault = fault or name_fault(name) or _quantity_fault(quantity)
    if not fault and name in options.units:
        fault = f"expected {name!a} once"
    if fault or len(options.units) == _MAX_ENTRIES:
        raise UsageError(f"cannot use {word}: {fault or f'expected at most {_MAX_ENTRIES} units'}")
    options.units[name] = quantity


def _quantity_fault(value: str) -> str | None:
    whole, point, fraction = value.partition(".")
    digits = whole + fraction
    if digits.isascii() and digits.isdigit() and whole and (fraction or not point):
        if len(digits) <= _MAX_QUANTITY_DIGITS:
            return None
        return f"expected at most {_MAX_QUANTITY_DIGITS} digits, got {len(digits)}"
    return f"expected a number such as 12 or 0.5, got {value!a}"


_SETTERS = {
    "--class": _set_class,
    "--on-term": _set_on_term,
    "--ready": _set_ready,
    "--ready-timeout": _set_timeout,
    "--label": _set_label,
    "--unit": _set_unit,
}
KNOWN = (*FLAGS, *NAMES, *_SETTERS, "--help")


def _setter(word: str) -> "Callable[[Options, str, str], None]":
    if word in NAMES:
        return _set_name
    if word in _SETTERS:
        return _SETTERS[word]
    raise UnknownOption(word)
