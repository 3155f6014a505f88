"""A server's requests as predictions. Standard library, client and wire: this runs in the model's own process."""

from taximeter.asgi.meter import Meter

__all__ = ["Meter"]
