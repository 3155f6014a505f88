"""One attempt at an address: connect, ask, read the answer. Nothing here ever waits.

Owns the socket of the attempt, which is registered with the epoll of whoever waits. Refuses to know when to try again,
and what an answer means (answer).
"""

import _socket
import select

from taximeter.wrap.answer import Answer

TYPE_CHECKING = False  # as mypy reads it; typing costs more than all of this
if TYPE_CHECKING:
    from taximeter.wrap.strangers import Strangers
    from taximeter.wrap.targets import Address, Target

_EINPROGRESS = 115
_READ_BYTES = 4096
_ANY = {_socket.AF_INET: "0.0.0.0", _socket.AF_INET6: "::"}  # noqa: S104 -- a source, not a listener


class Probe:
    """An attempt at each address of a target in turn; that strangers take connections there says nothing."""

    def __init__(self, target: "Target", strangers: "Strangers", epoll: select.epoll) -> None:
        self._target = target
        self._strangers = strangers
        self._epoll = epoll
        self._left = iter(target.addresses)
        self._address = target.addresses[0]
        self._socket: _socket.socket | None = None
        self._answer: Answer | None = None
        self.fd = -1
        self.is_clear = True  #: if this comes to nothing, the command was not ready when it began

    def begin(self) -> bool | None:
        """Try the first address; True or False is a verdict, None says to go on once `fd` is ready."""
        return self._try_next()

    def go_on(self) -> bool | None:
        """Go on once `fd` is ready."""
        verdict: bool | None = False
        if self._socket is not None:
            try:
                verdict = self._receive(self._socket, self._answer) if self._answer else self._ask(self._socket)
            except BlockingIOError:
                return None
            except OSError:
                pass
        return self._try_next() if verdict is False else verdict

    def close(self) -> None:
        """Give it up; closed, it leaves the epoll."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._answer, self.fd = None, None, -1

    def _try_next(self) -> bool | None:
        for address in self._left:
            self.close()
            self._address = address
            self._socket = connect(address)
            if self._socket is not None:
                self.fd = self._socket.fileno()
                self._epoll.register(self.fd, select.EPOLLOUT)
                return None
            self._strangers.have_left(address)
        return False

    def _ask(self, connected: _socket.socket) -> bool | None:
        if connected.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR):
            self._strangers.have_left(self._address)
            return False
        if self._strangers.answer_at(self._address):
            self.is_clear = self._strangers.hold(self._address)
            return False
        request = self._target.request
        if not request:
            return True
        if connected.send(request) < len(request):
            return False
        self._answer = Answer()
        self._epoll.modify(self.fd, select.EPOLLIN)
        return None

    @staticmethod
    def _receive(connected: _socket.socket, answer: Answer) -> bool | None:
        data = connected.recv(_READ_BYTES)
        if not data:
            return answer.end()
        answer.feed(data)
        return answer.verdict


def connect(address: "Address") -> "_socket.socket | None":
    """A socket that connects, or None where that is refused at once.

    Its own port is asked for first: a port that nobody listens at might be given to us as our own, and who connects
    from a port to that same port connects to himself.
    """
    family, place = address
    flags = _socket.SOCK_STREAM | _socket.SOCK_NONBLOCK | _socket.SOCK_CLOEXEC
    try:
        connecting = _socket.socket(family, flags)
    except OSError:
        return None
    try:
        connecting.bind((_ANY[family], 0))
        if connecting.getsockname()[1] != place[1] and connecting.connect_ex(place) in (0, _EINPROGRESS):
            return connecting
    except OSError:
        pass
    connecting.close()
    return None
