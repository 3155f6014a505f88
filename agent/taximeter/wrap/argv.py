"""The command line of `taximeter run`: a list of words to options and a command.

Owns which options there are and what a name is. Parsed by hand: argparse alone costs as much as starting Python.
Refuses to know files, clocks and processes; values other than names are in values.py, the help and the guesses at a
misspelt option in helptext.py, which only those pay for who need them.
"""

from taximeter import wire

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable

    from taximeter.wrap.targets import Target

READY_NOW = ("exec", "notify")


class UsageError(Exception):
    """A command line that cannot be understood, and what was expected. `unknown` is a word like an option, but none."""

    unknown = ""


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
        self.target: Target | None = None  #: what `ready` names beside READY_NOW
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
#: Options whose value is more than a name: see values.py, which is imported once one of them is there.
OTHERS = ("--class", "--on-term", "--ready", "--ready-timeout", "--label", "--unit")
KNOWN = (*FLAGS, *NAMES, *OTHERS, "--help")


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
                other = " (the model's; for that of Taximeter, `taximeter --version`)" if word == "--version" else ""
                raise UsageError(f"cannot use {word}: expected a value after it{other}")
            value = words[at]
            at += 1
        setter(options, word, value)
    return options, _checked(options, words[at:])


def inherit(options: Options, parent: str | None, root: str | None, account: str | None) -> None:
    """Take from the environment what a run around this one left there; what was said here goes before it.

    Parent and root belong together: one that was said here may be of another tree than the one that was left there.
    """
    if options.parent in (None, parent, root) and options.root in (None, root or parent):
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
            if _is_unfit(ord(char)):
                return f"expected printable UTF-8, got {value!a}"
    return None


def _is_unfit(code: int) -> bool:
    """Whether a character breaks a line or a terminal, or makes two names look alike."""
    if code < 0x2000:
        return code < 0x20 or 0x7F <= code < 0xA0
    is_direction = code in (0x200E, 0x200F) or 0x202A <= code <= 0x202E or 0x2066 <= code <= 0x2069
    return is_direction or code in (0x2028, 0x2029, 0xFEFF) or 0xD800 <= code <= 0xDFFF


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


def _setter(word: str) -> "Callable[[Options, str, str], None]":
    if word in NAMES:
        return _set_name
    if word in OTHERS:
        from taximeter.wrap import values

        return values.SETTERS[word]
    error = UsageError(f"unknown option {word}")
    error.unknown = word
    raise error
