"""The list of models that the platform publishes: asked for (fetch), and its last good copy kept on the disk."""

from taximeter.prices.answer import Answer, Lists, Refusal
from taximeter.prices.copy import Copy, read_copy, write_copy

__all__ = ["Answer", "Copy", "Lists", "Refusal", "read_copy", "write_copy"]
