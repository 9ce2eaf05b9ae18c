#!/bin/sh
# Installs the Debian packages that integration tests start servers from, as root or with a sudo that asks for no password.
# Where that cannot be, it says what is missing and ends well: those tests are skipped, and say so too.
set -eu
PATH="$PATH:/usr/sbin:/sbin"

missing=""
needs() { # program package
    command -v "$1" >/dev/null || missing="$missing $2"
}
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || needs initdb postgresql
needs ip iproute2
needs ssh openssh-client
needs rsync rsync
needs uptime procps
# Installed where systemd runs, it would begin to listen to the world: there, whoever owns the machine decides.
[ -d /run/systemd/system ] || needs sshd openssh-server
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "packages: missing here:$missing; there is no apt-get to install it with, so tests that need it are skipped" >&2
    exit 0
fi
if [ "$(id -u)" = 0 ]; then
    as_root="env"
elif sudo -n true 2>/dev/null; then
    as_root="sudo -n env"
else
    echo "packages: missing here:$missing; tests that need it are skipped until someone runs: sudo apt-get install$missing" >&2
    exit 0
fi

# Tests start clusters of their own: Debian's PostgreSQL is to make and start none, unless that was decided before.
settings=/etc/postgresql-common/createcluster.d
$as_root mkdir -p "$settings"
[ -e "$settings/mergeline.conf" ] || echo "create_main_cluster = false" | $as_root tee "$settings/mergeline.conf" >/dev/null
quiet="DEBIAN_FRONTEND=noninteractive"
patience="-o Acquire::http::Timeout=20 -o Acquire::Retries=1"  # where nothing can be reached, the tests go on without
# shellcheck disable=SC2086  # a word for each package
if ! { $as_root apt-get $patience update -qq && $as_root $quiet apt-get $patience install -y -qq --no-install-recommends $missing; } >&2; then
    echo "packages:$missing could not be installed; tests that need it are skipped" >&2
fi
