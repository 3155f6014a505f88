"""What becomes of asking for a price list: a list, or a reason why there is none."""

from dataclasses import dataclass
from typing import Protocol

from taximeter.errors import TaximeterError


class Refusal(TaximeterError):
    """There is no list; `reason` is a bounded word, `retry_after_s` what was asked for."""

    def __init__(self, reason: str, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Answer:
    """A list as it came."""

    body: str
    etag: str | None
    modified: str | None  #: Last-Modified


class Lists(Protocol):
    """Whoever has a list."""

    @property
    def source(self) -> str:
        """Whom it asks, for people."""

    async def fetch(self, etag: str | None) -> Answer | None:
        """The list; None: it is still the one of that `etag`. Raises Refusal."""
