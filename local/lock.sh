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
maintain=functions/maintain
compile $authorizer/requirements.in -c $layer/requirements.txt -o $authorizer/requirements.txt
compile $maintain/requirements.in -o $maintain/requirements.txt
all="requirements/run.in $layers $maintain/requirements.in"
compile $all -c $layer/requirements.txt -c $authorizer/requirements.txt \
    -c $maintain/requirements.txt -o requirements/run.txt
compile requirements/simulate.in $all -c requirements/run.txt -o requirements/simulate.txt
compile requirements/dev.in requirements/simulate.in $all \
    -c requirements/simulate.txt -o requirements/dev.txt
compile requirements/ministack.in -c requirements/run.txt -o requirements/ministack.txt
# uv installs these, and wants the extras named.
for alone in sam checkov audit; do
    compile --no-strip-extras requirements/$alone.in -o requirements/$alone.txt
done
