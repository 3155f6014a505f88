"""Giving up CAP_NET_ADMIN: what it takes to hear the kernel's process events is needed once, and never again.

Before Linux 6.6 the kernel asks it of who wants to listen, and everywhere of who wants a buffer beyond
net.core.rmem_max. It also lets its holder rebuild the machine's network: so it is gone before anything is read.
"""

import ctypes
import os

from taximeter.errors import TaximeterError

_NET_ADMIN = 1 << 12
#: _LINUX_CAPABILITY_VERSION_3: two records of 32 capabilities each.
_VERSION = 0x2008_0522

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def give_up_net_admin() -> None:
    """Let this thread, and those that it starts from now on, be without; raises TaximeterError where that fails."""
    header, sets = _Header(_VERSION, 0), (_Sets * 2)()
    _check(_libc.capget(ctypes.byref(header), sets))
    low = sets[0]
    if (low.effective | low.permitted | low.inheritable) & _NET_ADMIN == 0:
        return
    for name in ("effective", "permitted", "inheritable"):  # the ambient set follows
        setattr(low, name, getattr(low, name) & ~_NET_ADMIN)
    _check(_libc.capset(ctypes.byref(header), sets))


def _check(result: int) -> None:
    if result != 0:
        said = os.strerror(ctypes.get_errno())
        raise TaximeterError(f"cannot give up CAP_NET_ADMIN: expected capset to be allowed, got: {said}")
