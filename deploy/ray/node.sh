#!/usr/bin/env bash
# Makes a machine a node of a Ray cluster: the shared file system at its place, the project in .venv with the versions that are tested
# together. `ray up` runs it on every node, as a setup command; run again it changes nothing that is right already.
#
# MERGELINE_NFS      what to mount: server:/export, or "mounted" if the shared file system is at its place on every node already
# MERGELINE_SHARED   that place, the same on all nodes (/shared)
set -euo pipefail

fail() {
    echo "node.sh: $*" >&2
    exit 1
}

nfs=${MERGELINE_NFS:-}
shared=${MERGELINE_SHARED:-/shared}
home=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
token=${RAY_AUTH_TOKEN_PATH:-$HOME/.ray/auth_token}

[[ -n $nfs ]] || fail "MERGELINE_NFS is empty; in the cluster's YAML file set it to server:/export, or to \"mounted\""
[[ $nfs == mounted || $nfs == *:/* ]] || fail "MERGELINE_NFS is '$nfs', which is not of the form server:/export"
[[ -s $token ]] || fail "$token is missing; make one with 'ray get-auth-token --generate' where 'ray up' is run"
chmod 600 "$token"

install_packages() {
    sudo apt-get update -q
    sudo DEBIAN_FRONTEND=noninteractive apt-get install -yq "$@"
}

if [[ $nfs == mounted ]]; then
    [[ -d $shared ]] || fail "MERGELINE_NFS is \"mounted\", but there is no $shared on $(hostname)"
elif ! mountpoint -q "$shared"; then
    command -v mount.nfs4 >/dev/null || install_packages nfs-common
    sudo mkdir -p "$shared"
    # Another node's new files are looked up again, not remembered as missing.
    sudo mount -t nfs4 -o nfsvers=4.1,hard,timeo=600,retrans=2,noresvport,lookupcache=positive "$nfs" "$shared"
fi
if [[ ! -d $shared/mergeline ]]; then
    mkdir "$shared/mergeline" 2>/dev/null || sudo install -d -o "$(id -u)" -g "$(id -g)" "$shared/mergeline"
fi
[[ -w $shared/mergeline ]] || fail "$shared/mergeline cannot be written by $(id -un)"

python=${MERGELINE_PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old; take an image with Python 3.11 or newer"
"$python" -c 'import ensurepip' 2>/dev/null || install_packages python3-venv
[[ -x $home/.venv/bin/pip ]] || "$python" -m venv "$home/.venv"

# torch first, at its pinned version: a resolver left alone may bring another one.
"$home/.venv/bin/pip" install --quiet --disable-pip-version-check -c "$home/constraints.txt" torch
"$home/.venv/bin/pip" install --quiet --disable-pip-version-check -c "$home/constraints.txt" -e "${home}[digits,lora,search]"
echo "node.sh: $(hostname) is ready"
