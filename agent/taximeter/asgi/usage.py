"""What a response says of itself: its token counts, and whether it failed.

Owns the names of OpenAI's and Anthropic's `usage` objects and what they mean as units. Refuses to know where in a body
they stand, and never raises, whatever stands there.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

#: A unit of a mark has at most 40 digits.
_BEYOND: Final = 10**40
_DETAILS: Final = (
    "prompt_tokens_details",
    "completion_tokens_details",
    "input_tokens_details",
    "output_tokens_details",
)
_COUNTS: Final = (
    "prompt_tokens",
    "completion_tokens",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
)


class Said:
    """What a body said so far. Of each count its last word holds: streams tell totals to date, again and again."""

    __slots__ = ("counts", "failed", "unread")

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.failed = False  #: it told of an error
        self.unread = False  #: not all of it could be looked through

    def usage(self, raw: bytes) -> None:
        """Take in a usage object; what is none changes nothing."""
        try:
            usage = json.loads(raw)
        except (ValueError, RecursionError):  # bad UTF-8 and numbers of thousands of digits are ValueErrors, too
            return
        self.take(usage)

    def take(self, usage: Mapping[str, Any]) -> None:
        """Take in a usage object that was read."""
        details = [inner for inner in map(usage.get, _DETAILS) if isinstance(inner, dict)]
        for source in (*details, usage):
            for name in _COUNTS:
                value = source.get(name)
                if type(value) is int and 0 <= value < _BEYOND:
                    self.counts[name] = value

    def units(self) -> dict[str, int]:
        """Tokens that were read and written, and what of these was cached and reasoning; only what was said."""
        counts = self.counts
        if not counts and not self.unread:
            return {}
        read, written = _read(counts), _first(counts, "completion_tokens", "output_tokens")
        if read is None and written is None:
            read = counts.get("total_tokens")  # embeddings, reranking: nothing is written
        units = {
            "token_input": read,
            "token_output": written,
            "token_input_cached": _first(counts, "cached_tokens", "cache_read_input_tokens") or None,
            "token_output_reasoning": counts.get("reasoning_tokens") or None,
            "usage_unread": 1 if self.unread else None,
        }
        return {name: count for name, count in units.items() if count is not None and count < _BEYOND}


def _first(counts: Mapping[str, int], *names: str) -> int | None:
    return next((counts[name] for name in names if name in counts), None)


def _read(counts: Mapping[str, int]) -> int | None:
    """All tokens that were read: OpenAI's counts have the cached ones in them, Anthropic's have not."""
    if "prompt_tokens" in counts or "input_tokens" not in counts:
        return counts.get("prompt_tokens")
    cached = counts.get("cache_read_input_tokens", 0) + counts.get("cache_creation_input_tokens", 0)
    return counts["input_tokens"] + cached
