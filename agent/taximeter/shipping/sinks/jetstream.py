"""What a JetStream says to messages that it is to store: that it did, that it has them, or why not.

Owns the meaning of its answers. Where it says that it has something under a subject already, it is asked what: only the
very bytes count as delivered. Refuses to know how it is reached.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from taximeter.headers import reason_of
from taximeter.shipping.sinks.nats_link import Link, Message

if TYPE_CHECKING:
    from nats.aio.msg import Msg

#: A record that is the only one of its subject asks for this.
ONLY_ONE = {"Nats-Expected-Last-Subject-Sequence": "0"}
#: Their own numbers for why not.
_IS_THERE = 10071
_NO_MESSAGE = 10037
_REASONS = {10054: "too_large", 10164: "server_error"}  # 10164: another copy is about to be stored, or not


class NotStored(Exception):
    """A message that no stream took, over a connection that is sound; `reason` is a bounded word."""

    def __init__(self, reason: str, said: str) -> None:
        super().__init__(said)
        self.reason = reason


class _Error(msgspec.Struct):
    code: int = 500
    err_code: int = 0
    description: str = ""


class _Held(msgspec.Struct):
    data: bytes = b""  # base64 on the wire


class _Answer(msgspec.Struct):
    stream: str = ""
    streams: list[str] | None = None
    message: _Held | None = None
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Answer).decode


async def store(link: Link, messages: Sequence[Message]) -> None:
    """Have a stream store all of `messages`, or find that it has them; NotStored."""
    for one in messages:
        if len(one.body) > link.most_bytes:
            raise NotStored("too_large", f"{len(one.body)} bytes in one message: the server takes {link.most_bytes}")
    there = []
    for one, answer in zip(messages, map(read, await link.ask(messages)), strict=True):
        if answer.error is not None and answer.error.err_code == _IS_THERE and answer.stream:
            there.append((answer.stream, one))
        elif (fault := fault_in(answer)) is not None:
            raise fault
    if there:
        await _compare(link, there)


async def _compare(link: Link, there: Sequence[tuple[str, Message]]) -> None:
    """See that what streams have is what they are sent; a subject may have been mapped to another's."""
    questions = [
        Message(f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode({"last_by_subj": one.subject}), {})
        for stream, one in there
    ]
    for (stream, one), answer in zip(there, map(read, await link.ask(questions)), strict=True):
        if answer.message is None:
            why = answer.error.description if answer.error else "no answer"
            raise NotStored("server_error", f"{stream} says that it has {one.subject}, and does not show it: {why}")
        if answer.message.data != one.body:
            raise NotStored("diverged", f"{stream} has another record under {one.subject}")


async def missing(link: Link, messages: Sequence[Message]) -> list[int]:
    """Which of `messages`, each of a subject of its own, no stream has, by their places; NotStored."""
    asked = Message("$JS.API.STREAM.NAMES", msgspec.json.encode({"subject": messages[0].subject}), {})
    (named,) = await link.ask([asked])
    streams = read(named).streams
    if not streams:
        raise NotStored("no_stream", f"no stream has the subject {messages[0].subject}")
    questions = [
        Message(f"$JS.API.STREAM.MSG.GET.{streams[0]}", msgspec.json.encode({"last_by_subj": one.subject}), {})
        for one in messages
    ]
    lost: list[int] = []
    for at, (one, answer) in enumerate(zip(messages, map(read, await link.ask(questions)), strict=True)):
        if answer.error is not None and answer.error.err_code == _NO_MESSAGE:
            lost.append(at)
        elif answer.message is None or answer.message.data != one.body:
            raise NotStored("diverged", f"{streams[0]} does not show the same record under {one.subject}")
    return lost


def read(message: "Msg") -> _Answer:
    """Read an answer; NotStored where it is none."""
    if (message.headers or {}).get("Status") == "503":
        raise NotStored("no_stream", "nobody answers")
    try:
        return _decode(message.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise NotStored("connection", "an answer that is none") from None


def fault_in(answer: _Answer) -> NotStored | None:
    """What is wrong with an acknowledgement; None where a stream has stored the message."""
    error = answer.error
    if error is None:
        return None if answer.stream else NotStored("connection", "an answer that is no acknowledgement")
    reason = _REASONS.get(error.err_code) or reason_of(error.code)
    return NotStored(
        "server_error" if error.err_code == _IS_THERE else reason, f"{error.description} ({error.err_code})"
    )
