"""What a Meter is told: by its arguments, else by TAXIMETER_ASGI_*, else what is usual.

Owns the settings, their words in the environment, and which requests are predictions. Refuses to know requests
otherwise. A setting that makes no sense is an error, and no default: that were a wrong bill, or trust in whoever asks.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypedDict

#: `--middleware` and its like make a Meter without arguments; each setting is this and its name in upper case.
PREFIX: Final = "TAXIMETER_ASGI_"
#: Which header says what of a prediction.
HEADERS: Final = {
    "prediction": "taximeter-prediction",
    "account": "taximeter-account",
    "class": "taximeter-class",
    "model": "taximeter-model",
    "version": "taximeter-version",
    "pool": "taximeter-pool",
    "parent": "taximeter-parent",
    "root": "taximeter-root",
}
#: What servers offer beside predictions: health, figures, documentation, tokenizers, administration.
NOT_PREDICTIONS: Final = (
    *("/health*", "/livez", "/readyz", "/ready", "/ping", "/load", "/info", "/version", "/server_info", "/metrics*"),
    *("/docs*", "/redoc*", "/openapi.json", "/schema.json", "/favicon.ico", "/static*", "/v1/models*"),
    *("/tokenize", "/detokenize", "/v1/tokenize", "/v1/detokenize", "/v1/files*", "*/cancel", "/shutdown"),
    *("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/reset_*", "/sleep", "/wake_up", "/is_*"),
    *("/start_profile", "/stop_profile", "/pause", "/resume", "/scale_elastic_ep", "/collective_rpc"),
    *("/init_weight_transfer_engine", "/update_weights", "/abort_requests"),
)
CLIENT_ERRORS: Final = ("failed", "canceled")
_WORDS: Final = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)
_HEADER_NAME: Final = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]*")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a Meter measures. A request's own header comes before the model, version, … that stand here."""

    model: str | None = None
    version: str | None = None
    account: str | None = None
    service_class: str | None = None
    pool: str | None = None
    paths: tuple[str, ...] = ("*",)  #: which are predictions; `*` stands for anything, `/` too
    skip: tuple[str, ...] = NOT_PREDICTIONS  #: of these, which are not
    methods: tuple[str, ...] = ("POST",)
    headers: Mapping[str, str] = field(default_factory=lambda: HEADERS)  #: an empty name: no header says that
    trust_headers: bool = True  #: whether they count at all; whoever reaches the server can set them
    client_errors: str = "failed"  #: what a request that is answered 4xx ended as: failed or canceled
    usage: bool = True  #: token counts and errors are read out of what is answered
    websockets: bool = False  #: whether a connection is a prediction
    lifespan: bool = True  #: the server's own startup says ready, its shutdown stopping
    admit: bool = False  #: a request that this node denies its account, or the model to it, is refused


class Given(TypedDict, total=False):
    """The settings as arguments of a Meter."""

    model: str | None
    version: str | None
    account: str | None
    service_class: str | None
    pool: str | None
    paths: Iterable[str]
    skip: Iterable[str]
    methods: Iterable[str]
    headers: Mapping[str, str]
    trust_headers: bool
    client_errors: str
    usage: bool
    websockets: bool
    lifespan: bool
    admit: bool


def read_settings(given: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """The settings: what is given, else the environment's. Raises ValueError, and TypeError for one that is none."""
    said = {name: environment.get(PREFIX + name.upper()) for name in (one.name for one in fields(Settings))}
    values: dict[str, Any] = {name: _said(name, text) for name, text in said.items() if text is not None}
    values |= {name: _given(name, value) for name, value in given.items()}
    if "headers" in values:
        values["headers"] = _headers(values["headers"])
    settings = Settings(**values)
    if settings.client_errors not in CLIENT_ERRORS:
        raise ValueError(f"cannot use client_errors {settings.client_errors!r}: expected one of {CLIENT_ERRORS}")
    return settings


def path_matcher(settings: Settings) -> Callable[[str], bool]:
    """Whether what is asked for at a path is a prediction."""
    wanted, skipped = _matcher(settings.paths), _matcher(settings.skip)
    return lambda path: wanted(path) and not skipped(path)


def _matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    plain = frozenset(pattern for pattern in patterns if not set("*?[") & set(pattern))
    wild = [pattern for pattern in patterns if pattern not in plain]
    if "*" in wild:
        return lambda _path: True
    match = re.compile("|".join(fnmatch.translate(pattern) for pattern in wild) or r"(?!)").match
    return lambda path: path in plain or match(path) is not None


def _given(name: str, value: Any) -> Any:
    if name in _LISTS:
        value = (value,) if isinstance(value, str) else tuple(value)
    return tuple(word.upper() for word in value) if name == "methods" else value


def _said(name: str, text: str) -> Any:
    """A setting as the environment says it; lists are parted by commas or spaces. Raises ValueError."""
    if name in _LISTS:
        return _given(name, text.replace(",", " ").split())
    if name in _SWITCHES:
        if text.strip().lower() not in _WORDS:
            raise ValueError(f"cannot use {PREFIX}{name.upper()} {text!r}: expected 1 or 0")
        return _WORDS[text.strip().lower()]
    if name == "headers":
        return dict(word.partition("=")[::2] for word in text.replace(",", " ").split())
    return text


def _headers(names: Mapping[str, str]) -> dict[str, str]:
    unknown = sorted(set(names) - set(HEADERS))
    if unknown:
        raise ValueError(f"cannot take {unknown[0]!r} from a header: expected one of {tuple(HEADERS)}")
    named = {**HEADERS, **{key: name.lower() for key, name in names.items()}}
    for name in named.values():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"cannot use {name!r} as a header: expected a name of HTTP, or nothing for no header")
    return named


_LISTS: Final = ("paths", "skip", "methods")
_SWITCHES: Final = ("trust_headers", "usage", "websockets", "lifespan", "admit")
