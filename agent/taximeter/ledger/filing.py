"""What a record is found by, held against what it says. Pure; refuses to know the chain."""

from msgspec import structs

from taximeter.ledger.balance import Event
from taximeter.ledger.metered import Say
from taximeter.ledger.values import Filed
from taximeter.records import utc_text

#: The lookups' columns, as a person calls them.
_FILED_BY = ("id", "type", "time", "prediction", "root", "account", "model")


def compare(filed: Filed | None, event: Event, say: Say) -> int | None:
    """Compare what a record is found by with what it says; gives its time where both agree on one."""
    if filed is None:
        say("is filed nowhere, so that it is not found by what it says")
        return None
    data = event.data
    root = data.root if data.root != data.prediction else None
    time = _instant(filed.time_utc_ns)
    said = Filed(event.id, event.type, filed.time_utc_ns, data.prediction, root, data.account, data.model)
    if time != event.time or filed != said:
        pair = structs.replace(filed, time_utc_ns=time), structs.replace(said, time_utc_ns=event.time)
        for name, found, expected in zip(_FILED_BY, *map(structs.astuple, pair), strict=True):
            if found != expected:
                say(f"is filed under {name} {found}, not {expected}: it is not found by what it says")
    return filed.time_utc_ns if isinstance(filed.time_utc_ns, int) and time == event.time else None


def _instant(time_utc_ns: object) -> object:
    """A filed time as records write it; what is none stays as it is, and differs."""
    try:
        return utc_text(time_utc_ns) if isinstance(time_utc_ns, int) else time_utc_ns
    except (ValueError, OverflowError, OSError):
        return time_utc_ns
