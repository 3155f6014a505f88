"""Values of options that are more than a name: choices, seconds, labels, units.

Owns what each of them may say. Imported once one of them is on the command line. Refuses to know the others.
"""

from taximeter import wire
from taximeter.wrap.argv import READY_NOW, Options, UsageError, name_fault

_NS_PER_S = 1_000_000_000
_MAX_TIMEOUT_DIGITS = 9
_MAX_QUANTITY_DIGITS = 40
_MAX_ENTRIES = 64


def _set_choice(word: str, value: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise UsageError(f"cannot use {word} {value!a}: expected one of {' '.join(choices)}")
    return value


def _set_class(options: Options, word: str, value: str) -> None:
    options.service_class = _set_choice(word, value, wire.CLASSES)


def _set_on_term(options: Options, word: str, value: str) -> None:
    options.on_term = _set_choice(word, value, wire.ON_TERM)


def _set_ready(options: Options, word: str, value: str) -> None:
    options.ready, options.target = value, None
    if value in READY_NOW:
        return
    from taximeter.wrap import targets

    if not value.startswith(targets.PREFIXES):
        expected = "exec, notify, http://HOST[:PORT]/PATH, tcp:HOST:PORT or log:REGEX"
        raise UsageError(f"cannot use {word} {value!a}: expected {expected}")
    options.target = targets.parse(word, value)


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
    if not fault and key in options.labels:
        fault = f"expected {key!a} once"
    if fault or len(options.labels) == _MAX_ENTRIES:
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


SETTERS = {
    "--class": _set_class,
    "--on-term": _set_on_term,
    "--ready": _set_ready,
    "--ready-timeout": _set_timeout,
    "--label": _set_label,
    "--unit": _set_unit,
}
