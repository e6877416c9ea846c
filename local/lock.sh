#!/bin/sh
# Writes the pinned requirements files from the .in files beside them (`make lock`).
set -eu
compile() {
    uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
        --no-emit-index-url --no-annotate --no-header "$@"
}
layer=layers/dependencies authorizer=layers/authorizer
layers="$layer/requirements.in $authorizer/requirements.in"
compile $layer/requirements.in -o $layer/requirements.txt
compile $authorizer/requirements.in -c $layer/requirements.txt -o $authorizer/requirements.txt
compile requirements/run.in $layers \
    -c $layer/requirements.txt -c $authorizer/requirements.txt -o requirements/run.txt
compile requirements/simulate.in requirements/run.in $layers \
    -c requirements/run.txt -o requirements/simulate.txt
compile requirements/dev.in requirements/simulate.in requirements/run.in $layers \
    -c requirements/simulate.txt -o requirements/dev.txt
# uv installs this one, and wants the extras named.
compile --no-strip-extras requirements/sam.in -o requirements/sam.txt
