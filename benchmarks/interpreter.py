"""Says which Python and which machine a figure is from: a build without PGO runs pure loops at half the speed."""

import os
import platform
import sys
import sysconfig


def describe() -> str:
    """One line for the head of every benchmark's output."""
    flags = sysconfig.get_config_var("PY_CFLAGS") or ""
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    pgo = "-fprofile-use" in flags or "--enable-optimizations" in arguments
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    python = f"CPython {platform.python_version()} ({'PGO' if pgo else 'no PGO'} build, {sys.base_prefix})"
    return f"{python}; {platform.system()} {platform.release()}, {os.cpu_count()} cores, load {load}"
