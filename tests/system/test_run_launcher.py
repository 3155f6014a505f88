"""The launcher finds its Python and its package wherever an installer, a link or a shell puts it."""

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import taximeter
from tests.require import require_path, require_program
from tests.system.rides import PROGRAM, Rides

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
PACKAGE = Path(taximeter.__file__).parent
#: An interpreter outside of any environment: the one that made ours.
BASE = str(Path(sys.base_prefix) / "bin" / VERSION)


@pytest.fixture
def rides(tmp_path: Path) -> Rides:
    return Rides(tmp_path)


def install(prefix: Path, library: str, python: str | None = "python3") -> Path:
    """Lay the launcher and the package out as an installer does; returns the launcher."""
    (prefix / "bin").mkdir(parents=True, exist_ok=True)
    (prefix / library).mkdir(parents=True, exist_ok=True)
    (prefix / library / "taximeter").symlink_to(PACKAGE)
    launcher = prefix / "bin" / "taximeter"
    shutil.copy(Path(PROGRAM).resolve(), launcher)
    if python is not None:
        (prefix / "bin" / python).symlink_to(BASE)
    return launcher


def interpreter(rides: Rides, *launcher: "str | Path", **kwargs: object) -> str:
    """The interpreter that runs the wrapper, as the command sees its parent."""
    look = "import os; print(open(f'/proc/{os.getppid()}/cmdline').read().split(chr(0))[0])"
    words = [*map(str, launcher), "run", "--", BASE, "-c", look]
    kwargs = {"env": rides.environment(), **kwargs}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, **kwargs)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    facts = [fact["f"] for fact in rides.facts() if fact["f"] != "heartbeat"]  # a busy machine takes its time
    assert facts == ["open", "spawn", "ready", "exit"]
    found: str = done.stdout.strip()
    return found


@pytest.mark.parametrize(
    "library",
    [
        f"lib/{VERSION}/site-packages",
        f"lib64/{VERSION}/site-packages",
        f"lib/{VERSION}/dist-packages",
        "lib/python3/dist-packages",
        ".",
    ],
)
def test_the_python_beside_it_runs_the_package_beside_it(rides: Rides, library: str) -> None:
    launcher = install(rides.path / "prefix", library)
    assert interpreter(rides, launcher) == str(rides.path / "prefix" / "bin" / "python3")


def test_a_link_leads_to_the_python_of_what_it_points_at(rides: Rides) -> None:
    launcher = install(rides.path / "prefix", f"lib/{VERSION}/site-packages")
    (rides.path / "bin").mkdir()
    (rides.path / "bin" / "python3").write_text("#!/bin/sh\nexit 99\n")
    (rides.path / "bin" / "python3").chmod(0o755)
    (rides.path / "bin" / "taximeter").symlink_to(launcher)
    assert interpreter(rides, rides.path / "bin" / "taximeter") == str(launcher.parent / "python3")


def test_a_chain_of_relative_links_is_followed(rides: Rides) -> None:
    install(rides.path / "prefix", f"lib/{VERSION}/site-packages")
    (rides.path / "a").mkdir()
    (rides.path / "a" / "one").symlink_to("../two")
    (rides.path / "two").symlink_to("prefix/bin/taximeter")
    assert interpreter(rides, rides.path / "a" / "one").endswith("prefix/bin/python3")


def test_it_is_found_by_its_name_and_by_a_relative_path(rides: Rides) -> None:
    install(rides.path / "prefix", f"lib/{VERSION}/site-packages")
    path = f"{rides.path}/prefix/bin:{os.environ['PATH']}"
    assert interpreter(rides, "taximeter", env=rides.environment(PATH=path)).endswith("prefix/bin/python3")


def test_a_relative_path_is_enough(rides: Rides) -> None:
    install(rides.path / "prefix", f"lib/{VERSION}/site-packages")
    assert interpreter(rides, "./taximeter", cwd=rides.path / "prefix" / "bin") == "./python3"


def test_a_path_with_odd_characters_is_a_path(rides: Rides) -> None:
    launcher = install(rides.path / "a b'c$d\né*", f"lib/{VERSION}/site-packages")
    assert interpreter(rides, launcher) == str(launcher.parent / "python3")


def test_without_a_python_beside_it_the_version_of_its_package_is_taken_from_the_path(rides: Rides) -> None:
    launcher = install(rides.path / "home" / ".local", f"lib/{VERSION}/site-packages", python=None)
    (rides.path / "bin").mkdir()
    (rides.path / "bin" / VERSION).symlink_to(BASE)
    (rides.path / "bin" / "python3").write_text("#!/bin/sh\nexit 99\n")
    (rides.path / "bin" / "python3").chmod(0o755)
    environment = rides.environment(PATH=f"{rides.path}/bin:{os.environ['PATH']}")
    assert interpreter(rides, launcher, env=environment) == str(rides.path / "bin" / VERSION)


def test_a_python_that_is_too_old_hands_over_to_one_that_is_not(rides: Rides) -> None:
    launcher = install(rides.path / "prefix", "lib/python3/dist-packages", python=None)
    old = rides.path / "prefix" / "bin" / "python3"
    pretend = "import sys; sys.version_info = (3, 9); sys.argv = sys.argv[1:]"
    trick = f"{pretend}; exec(compile(open(sys.argv[0]).read(), sys.argv[0], 'exec'))"
    old.write_text(f'#!/bin/sh\nshift 3\nexec {BASE} -IS -c "{trick}" "$@"\n')
    old.chmod(0o755)
    (rides.path / "bin").mkdir()
    (rides.path / "bin" / "python3.11").symlink_to(BASE)
    environment = rides.environment(PATH=f"{rides.path}/bin:/usr/bin:/bin")
    assert "python3.1" in interpreter(rides, launcher, env=environment)


def test_a_package_without_compiled_modules_runs_all_the_same(rides: Rides) -> None:
    launcher = install(rides.path / "prefix", f"lib/{VERSION}/site-packages")
    library = rides.path / "prefix" / "lib" / VERSION / "site-packages" / "taximeter"
    library.unlink()
    shutil.copytree(PACKAGE, library, ignore=shutil.ignore_patterns("__pycache__"))
    library.chmod(0o555)
    assert interpreter(rides, launcher)


def test_a_package_whose_source_is_younger_than_its_compiled_modules_runs_the_source(rides: Rides) -> None:
    launcher = install(rides.path / "prefix", f"lib/{VERSION}/site-packages")
    library = rides.path / "prefix" / "lib" / VERSION / "site-packages" / "taximeter"
    library.unlink()
    shutil.copytree(PACKAGE, library)
    wire = library / "wire.py"
    wire.write_text(wire.read_text().replace('VERSION = "', 'VERSION = "new-'))
    assert interpreter(rides, launcher)
    assert rides.facts("open")[0]["software"].startswith("taximeter new-")


def test_what_runs_is_the_whole_that_was_compiled_when_the_package_was_installed(rides: Rides) -> None:
    require_path(str(PACKAGE / "wrap" / "whole.py"), "make install (an editable install reads the sources)")
    look = "import os; print(open(f'/proc/{os.getppid()}/cmdline').read().split(chr(0))[4])"
    done = subprocess.run(rides.words("--", BASE, "-c", look), env=rides.environment(), capture_output=True, text=True)
    assert Path(done.stdout.strip()).name == f"whole.{sys.implementation.cache_tag}.pyc"


def test_what_was_not_compiled_when_it_was_installed_is_compiled_by_the_first_run(rides: Rides) -> None:
    launcher = install(rides.path / "prefix", f"lib/{VERSION}/site-packages")
    library = rides.path / "prefix" / "lib" / VERSION / "site-packages" / "taximeter"
    library.unlink()
    shutil.copytree(PACKAGE, library, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {name: value for name, value in rides.environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
    assert interpreter(rides, launcher, env=environment)
    assert list(library.glob("wrap/__pycache__/*.pyc"))


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "bash"])
def test_any_shell_that_a_system_calls_sh_will_do(rides: Rides, shell: str) -> None:
    program, *flags = shell.split()
    launcher = install(rides.path / "prefix", f"lib/{VERSION}/site-packages")
    words = [require_program(program), *flags, str(launcher), "run", "--", "cat", "/proc/self/environ"]
    environment = {**rides.environment(), "A.B": "1", "PWD": "/x", "SHLVL": "7", "_": "y"}
    out = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    found = [
        entry
        for entry in out.split("\0")[:-1]
        if not entry.startswith(("TAXIMETER_MARKS", "TAXIMETER_PARENT", "TAXIMETER_ROOT"))
    ]
    assert found == [f"{name}={value}" for name, value in environment.items()]


def test_other_verbs_go_to_the_command_line_with_all_that_is_installed(rides: Rides) -> None:
    done = subprocess.run([PROGRAM, "--help"], env=rides.environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "receipt" in done.stdout


def test_other_verbs_work_through_a_link(rides: Rides) -> None:
    (rides.path / "here").symlink_to(PROGRAM)
    done = subprocess.run(
        [rides.path / "here", "status"], env=rides.environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, 1)
    assert "Traceback" not in done.stderr


def test_the_directory_of_the_launcher_is_not_searched_for_modules(rides: Rides) -> None:
    launcher = install(rides.path / "prefix", f"lib/{VERSION}/site-packages")
    (launcher.parent / "posix.py").write_text("raise SystemExit(99)")
    (launcher.parent / "time.py").write_text("raise SystemExit(99)")
    (launcher.parent / "resource.py").write_text("raise SystemExit(99)")
    assert interpreter(rides, launcher)


def test_the_working_directory_is_not_searched_for_modules(rides: Rides) -> None:
    for name in ("resource", "marshal", "taximeter", "select"):
        (rides.path / f"{name}.py").write_text("raise SystemExit(99)")
    assert interpreter(rides, PROGRAM, cwd=rides.path)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_while_it_starts_it_leaves_nothing_behind(rides: Rides, number: int) -> None:
    for delay_ms in range(16):
        with rides.start("--", "true", stderr=subprocess.DEVNULL) as process:
            select.select([], [], [], delay_ms / 1000)
            process.send_signal(number)
            assert process.stdout is not None
            assert process.stdout.read() == ""  # and the end of it: nobody holds the pipe
            assert process.wait(30) in (0, -number, 1)  # 1: interrupted before Python could be told not to mind


def test_all_descriptors_with_a_name_may_be_taken(rides: Rides) -> None:
    line = 'exec 3<&0 4<&0 5<&0 6<&0 7<&0 8<&0 9<&0; "$@"'
    words = ["sh", "-c", line, "-", *rides.words("--", "sh", "-c", "cat <&3 <&9; exit 4")]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, env=rides.environment(), timeout=60)
    assert done.returncode == 4
