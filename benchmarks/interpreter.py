"""Says which Python and which machine a figure is from: a build without PGO runs pure loops at half the speed."""

import os
import platform
import sys
import sysconfig
from pathlib import Path


def describe() -> str:
    """One line for the head of every benchmark's output."""
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return f"{_python()}; {platform.system()} {platform.release()}, {os.cpu_count()} cores, load {load}"


def describe_kind() -> str:
    """The same for a page: what kind of machine it was, and not which."""
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{_python()}; {platform.system()} {kernel}, {os.cpu_count()} {platform.machine()} cores"


def _python() -> str:
    return f"CPython {platform.python_version()} ({_build()}, {sys.base_prefix})"


def _build() -> str:
    """Whether the interpreter was built with profile-guided optimisation, and how that is known."""
    flags = sysconfig.get_config_var("PY_CFLAGS") or ""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    if "-fprofile-use" in flags or "--enable-optimizations" in arguments:
        return "PGO build"
    # Debian's rules pass the profile to make, not to configure, so that sysconfig does not show it.
    if sys.base_prefix == "/usr" and Path("/etc/debian_version").exists():
        return "Debian's own, a PGO build"
    return "no PGO build"
