"""Whether this node admits a prediction: what its agent says in files, so that asking costs an access(2) or two.

Owns where those files are, by the instance's FIFO and the environment: the same place as for `taximeter run` (a test
compares them). Loaded by the first prediction that asks. Refuses to know why an account is denied.
"""

import os

from taximeter import wire
from taximeter.client.around import Refused


def refusal(marks: str, account: "str | None", model: "str | None" = None) -> "Refused | None":
    """Why no prediction of this account may begin on the instance whose FIFO is `marks`, or None."""
    run = run_directory(marks)
    if account is not None:
        if os.access(f"{run}/{wire.DENIED_DIR}/{denied_name(account)}", os.F_OK):
            return Refused(f"account {account!a} is denied on this node: expected credit (see {run}/{wire.DENIED_DIR})")
        if model is not None and os.access(f"{run}/{wire.DENIED_DIR}/{denied_name(account, model)}", os.F_OK):
            why = f"model {model!a} is denied to account {account!a} on this node: expected room within its limit"
            return Refused(why, "model")
    if os.access(f"{run}/{wire.REFUSE_FILE}", os.F_OK) and not _agent_lives(run):
        why = "this node runs nothing without its agent, and there is none: expected `taximeter agent` to run"
        return Refused(why, "agent")
    return None


def run_directory(marks: str) -> str:
    """The run directory that belongs to the state directory in whose journal that FIFO is."""
    said = os.environ.get(wire.ENV_RUN_DIR)
    if said:
        return said
    state = os.path.dirname(os.path.dirname(marks))
    is_systems = state == wire.SYSTEM_STATE_DIR and not os.environ.get(wire.ENV_STATE_DIR)
    return wire.SYSTEM_RUN_DIR if is_systems else f"{state}/run"


def denied_name(account: str, model: "str | None" = None) -> str:
    """An account, or a model of it, as a file name: percent-encoded, so that none leaves its directory."""
    return _encoded(account) if model is None else f"{_encoded(account)}@{_encoded(model)}"


def _encoded(name: str) -> str:
    raw = name.encode("utf-8", "surrogateescape" if name.isascii() else "surrogatepass")
    plain = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-~."
    encoded = "".join([chr(byte) if byte in plain else f"%{byte:02X}" for byte in raw])
    if len(encoded) > wire.DENIED_MAX_BYTES:
        import hashlib

        return f"={hashlib.sha256(raw).hexdigest()}"
    return f"%2E{encoded[1:]}" if encoded.startswith(".") else encoded


def _agent_lives(run: str) -> bool:
    try:
        with open(f"{run}/{wire.AGENT_FILE}", "rb") as file:
            pid = file.read(4096).partition(b'"pid":')[2].lstrip()
        os.kill(int(pid[: len(pid) - len(pid.lstrip(b"0123456789"))]), 0)
    except PermissionError:
        return True  # of the agent's user, and so alive; or an unreadable agent file, whose agent gets the benefit
    except (OSError, ValueError, OverflowError):
        return False
    return True
