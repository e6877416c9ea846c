#!/bin/sh
# Usage: layers/compile.sh LAYER
# Compiles a layer's modules for the runtime, and gives each file the same time.
#
# Lambda cannot write bytecode beside the modules of a layer, so that each cold start would compile
# all of them: half of its time. Times are not what the bytecode is checked by: packing changes them.
# Takes Python 3.13 as uv finds or fetches it, or RUNTIME_PYTHON. With BYTECODE=optional a machine that
# has none and cannot fetch it builds the layer without.
set -eu
layer=$1
python=${RUNTIME_PYTHON:-$(uv python find --no-project 3.13 2>/dev/null || true)}
if [ -z "$python" ] && uv python install --quiet 3.13 2>/dev/null; then
    python=$(uv python find --no-project 3.13)
fi
if [ -n "$python" ]; then
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 13))' || {
        echo "error: $python is not Python 3.13, which the functions run on" >&2
        exit 1
    }
    # As if compiled where the layer will be, whatever folder it is built in.
    "$python" -m compileall -q -f --invalidation-mode unchecked-hash -s "$layer" -p /opt \
        "$layer/python"
elif [ "${BYTECODE:-required}" != optional ]; then
    echo "error: no Python 3.13 found, and uv cannot fetch one: set RUNTIME_PYTHON, or" \
        "BYTECODE=optional to do without bytecode (cold starts take twice as long)" >&2
    exit 1
fi
find "$layer" -exec touch -h -d 2020-01-01T00:00:00Z {} +
