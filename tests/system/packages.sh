#!/bin/sh
# Installs the programs that system tests use, where it may: as root, with apt-get. Else it names them; their tests
# are then skipped (or fail, under TAXIMETER_TEST_ALL=1). SYSTEM_PACKAGES=no: installs nothing.
set -eu
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

missing="" packages=""
need() { # PROGRAM PACKAGE
    command -v "$1" >/dev/null 2>&1 && return
    missing="$missing $1"
    case " $packages " in *" $2 "*) ;; *) packages="$packages $2" ;; esac
}
need curl curl
need strace strace
need tmux tmux
need less less
need openssl openssl
need cc gcc
need mount mount
need prometheus prometheus
need promtool prometheus
need nats-server nats-server
need faketime faketime
need systemd-analyze systemd
need systemd-nspawn systemd-container
need dbus-daemon dbus
need unshare util-linux
need ip iproute2
need pgrep procps
need setpriv util-linux
# What a compiler includes comes apart from it, and is only recommended by it.
if [ ! -e /usr/include/fcntl.h ]; then
    missing="$missing fcntl.h" packages="$packages libc6-dev"
fi
# The systemd test runs the agent as a user of its own, with the distribution's Python.
if [ -x /usr/bin/python3 ] && ! /usr/bin/python3 -c 'import ensurepip' 2>/dev/null; then
    missing="$missing ensurepip" packages="$packages python3-venv"
fi

[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || [ "${SYSTEM_PACKAGES:-}" = no ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "Not found:$missing. Tests that need them are skipped. (Debian: apt-get install$packages)"
    exit 0
fi

echo "Installing for system tests:$packages"
# Debian starts a service when it installs one (prometheus, nats-server): policy-rc.d says no, for this while.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    trap 'rm -f $policy' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod +x $policy
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet || echo "cannot update the package lists; trying with those that are here" >&2
# shellcheck disable=SC2086 # a list
apt-get install --quiet --yes --no-install-recommends $packages ||
    echo "cannot install$packages; tests that need them are skipped" >&2
# ... nor at the next boot.
for service in prometheus nats-server; do
    case " $packages " in *" $service "*)
        command -v systemctl >/dev/null 2>&1 && systemctl disable --quiet $service.service 2>/dev/null || true ;;
    esac
done
