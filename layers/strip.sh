#!/bin/sh
# Usage: layers/strip.sh FOLDER
# Deletes what no function needs from a folder of installed packages.
set -eu
cd "$1"
rm -rf bin pydantic/v1 pydantic_core/*.pyi *.dist-info/sboms
rm -f aws_lambda_powertools/event_handler/openapi/swagger_ui/*.js \
    aws_lambda_powertools/event_handler/openapi/swagger_ui/*.css
find . -name __pycache__ -prune -exec rm -r {} +
# How and from where a package was installed differs from build to build.
find . -path '*.dist-info/*' \( -name RECORD -o -name INSTALLER -o -name REQUESTED \
    -o -name direct_url.json -o -name uv_cache.json \) -delete
