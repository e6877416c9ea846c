#!/bin/sh
# Usage: local/install.sh REQUIREMENTS STAMP
# Makes .venv where it is missing, installs what the file pins, and touches the stamp.
set -eu
requirements=$1 stamp=$2
python=${PYTHON:-python3}

fail() {
    echo "error: $1" >&2
    exit 1
}

if [ ! -x .venv/bin/python ] || ! .venv/bin/python -c '' 2>/dev/null; then
    command -v "$python" >/dev/null ||
        fail "$python not found: install Python 3.11 or later (Debian: apt-get install python3 python3-venv)"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$("$python" --version) is too old, 3.11 or later is needed: make run PYTHON=/path/to/python3.13"
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python has no venv module: apt-get install python3-venv"
    echo "Making the Python environment .venv ($("$python" --version))"
    rm -rf .venv
    "$python" -m venv .venv || fail "could not make .venv: apt-get install python3-venv"
fi

echo "Installing the packages of $requirements (the first time this takes a minute)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes -r "$requirements" ||
    fail "the packages could not be installed: see above; is there a network?"
touch "$stamp"
