"""What a prediction tells those who work for it elsewhere: variables for a process, headers for a call.

Owns their names. Loaded by the first that is asked for; refuses to know marks.
"""

from taximeter import wire
from taximeter.client.text import is_name

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from taximeter.client.telling import Telling

#: Names of the headers by which a call says for which prediction it is made.
HEADER_PARENT = "taximeter-parent"
HEADER_ROOT = "taximeter-root"
HEADER_ACCOUNT = "taximeter-account"
HEADER_TRACEPARENT = "traceparent"


def environment(of: "Telling") -> dict[str, str]:
    """Variables by which a run under the meter has it as its parent."""
    said = {
        wire.ENV_PARENT: of.id,
        wire.ENV_ROOT: of.root,
        wire.ENV_ACCOUNT: of.account,
        wire.ENV_TRACEPARENT: of.traceparent,
    }
    return {name: value for name, value in said.items() if value is not None and is_name(value)}


def headers(of: "Telling") -> dict[str, str]:
    """Headers by which a prediction elsewhere has it as its parent: what HTTP has room for."""
    said = {
        HEADER_PARENT: of.id,
        HEADER_ROOT: of.root,
        HEADER_ACCOUNT: of.account,
        HEADER_TRACEPARENT: of.traceparent,
    }
    return {name: value for name, value in said.items() if value and value.isascii() and value.isprintable()}
