#!/bin/sh
# Usage: layers/compile.sh LAYER
# Compiles a layer's modules for the runtime, and gives every file the same time.
#
# Lambda cannot write bytecode beside the modules of a layer: without this each cold start compiles
# all of them, half of its time. Bytecode is used unchecked, for packing a layer changes the times.
# Takes RUNTIME_PYTHON, or a Python 3.13 that is installed, or has uv fetch one. With
# BYTECODE=optional a machine where that is not possible builds the layer without.
set -eu
layer=$1

if python=$("$(dirname "$0")"/runtime_python.sh); then
    # As if compiled where the layer will be, whatever folder it is built in; sets in one order.
    PYTHONHASHSEED=0 "$python" -m compileall -q -f --invalidation-mode unchecked-hash \
        -s "$layer" -p /opt "$layer/python"
elif [ "${BYTECODE:-required}" != optional ]; then
    echo "error: BYTECODE=optional does without bytecode (cold starts take twice as long)" >&2
    exit 1
fi
find "$layer" -exec touch -h -d 2020-01-01T00:00:00Z {} +
