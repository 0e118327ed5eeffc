#!/bin/sh
# Make the virtual environment and install what Debian has to bring. Usage: setup.sh VENV
# Runs as root or with sudo; asks apt for nothing that is there already.
set -eu
venv=$1

die() { printf 'setup: %s\n' "$1" >&2; exit 1; }
has() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }

python=${PYTHON:-python3}
has "$python" || die "got no $python, want Python 3.11 or newer: apt-get install python3"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "got $("$python" --version), want Python 3.11 or newer"

missing=""
has mosquitto || missing="$missing mosquitto"
has ip || missing="$missing iproute2"
# The TPM: libraries to build tpm2-pytss, a TPM in software, and the field's own tools to compare with.
has pkg-config && pkg-config --exists tss2-esys || missing="$missing libtss2-dev pkg-config gcc libc6-dev python3-dev"
has swtpm && has swtpm_setup || missing="$missing swtpm swtpm-tools"
has tpm2 || missing="$missing tpm2-tools"
has softhsm2-util || missing="$missing softhsm2"
[ -n "$(find /usr/lib -name 'libtss2-tcti-swtpm.so*' 2>/dev/null)" ] || missing="$missing libtss2-tcti-swtpm0"
[ -n "$(find /usr/lib/postgresql -name initdb 2>/dev/null)" ] || has initdb || missing="$missing postgresql"
has mmdebstrap || missing="$missing mmdebstrap"
has sshd || missing="$missing openssh-server openssh-client"
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
if [ -n "$missing" ]; then
    has apt-get || die "want these installed:$missing"
    sudo=""
    [ "$(id -u)" = 0 ] || { has sudo || die "want root or sudo to install:$missing"; sudo=sudo; }
    echo "setup: installing$missing"
    # None of them shall run as a service here: the tests start their own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | $sudo tee "$policy" >/dev/null
        $sudo chmod 755 "$policy"
        trap '$sudo rm -f "$policy"' EXIT
    fi
    $sudo apt-get update -qq
    # shellcheck disable=SC2086
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
"$venv/bin/python" -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
"$venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
