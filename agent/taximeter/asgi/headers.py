"""What the headers of a request say of its prediction.

Owns which values are believed: printable ASCII, no longer than a name may be, and of classes what a prediction may
have. Anything else is as if it had not been said, for the agent would refuse the whole prediction. Never raises.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from taximeter import wire
from taximeter.asgi.settings import Settings

#: The others bill the whole instance: only `taximeter run` can give them.
_CLASSES: Final = frozenset(word for word in wire.CLASSES if word not in ("private", "deployment"))
#: By name in the settings, that of the client's argument.
_ARGUMENTS: Final = {"prediction": "id", "class": "service_class"}

Headers = Iterable[tuple[bytes, bytes]]


def header_reader(settings: Settings) -> Callable[[Headers], dict[str, str]]:
    """What reads, of a request's headers, the arguments of `client.prediction`; the last of two alike holds."""
    usual = {
        name: value
        for name in ("model", "version", "account", "service_class", "pool")
        if (value := getattr(settings, name)) is not None
    }
    wanted = _wanted(settings.headers) if settings.trust_headers else {}
    wanted[b"traceparent"] = "traceparent"

    def read(headers: Headers) -> dict[str, str]:
        said = dict(usual)
        for name, raw in headers:
            argument = wanted.get(name)
            if argument is None:
                continue
            value = _name(raw)
            if value is not None and (argument != "service_class" or value in _CLASSES):
                said[argument] = value
        return said

    return read


def _wanted(headers: Mapping[str, str]) -> dict[bytes, str]:
    return {name.encode("latin-1", "replace"): _ARGUMENTS.get(key, key) for key, name in headers.items() if name}


def _name(raw: bytes) -> str | None:
    """A header's value as a name; None if it is none."""
    if not 0 < len(raw) <= wire.NAME_MAX_CHARS or not raw.isascii():
        return None
    value = raw.decode("ascii").strip()
    return value if value and value.isprintable() else None
