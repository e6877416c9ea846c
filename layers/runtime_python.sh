#!/bin/sh
# Usage: layers/runtime_python.sh
# Prints the path of a Python of the functions' version, 3.13: RUNTIME_PYTHON, or one that is
# installed, or one that uv has or fetches. Where there is none it says so and fails.
set -eu

find_python() {
    for candidate in "${RUNTIME_PYTHON:-python3.13}" \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3.13 \
        "$(uv python find --no-project --managed-python 3.13 2>/dev/null)"; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' 2>/dev/null; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

find_python || { uv python install --quiet 3.13 2>/dev/null && find_python; } || {
    echo "No Python 3.13 here, and uv cannot fetch one: set RUNTIME_PYTHON to one" >&2
    exit 1
}
