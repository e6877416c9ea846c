#!/bin/sh
# Makes a stand-in for the base image of Lambda's Python 3.13, for `sam local` where no registry of
# images is reached: Debian's Python, the client of Lambda's runtime API and boto3, from packages.
# Needs root, Docker, and Debian's package mmdebstrap. Takes half a minute.
set -eu
machine=$(uname -m)
case $machine in
x86_64) architecture=x86_64 ;;
aarch64) architecture=arm64 ;;
*) echo "error: no Lambda runs on $machine" >&2 && exit 1 ;;
esac
tag=public.ecr.aws/lambda/python:3.13-$architecture
PATH=$PATH:$(dirname "$0")/../.venv/bin # uv, which `make build` installs
for program in docker mmdebstrap uv; do
    command -v $program >/dev/null || { echo "error: $program not found" >&2 && exit 1; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder" # it becomes the image's root
mmdebstrap --quiet --variant=apt --include=python3,ca-certificates trixie "$folder"
uv pip install --quiet --only-binary :all: --python-platform "$machine-manylinux_2_28" \
    --python-version 3.13 --target "$folder/var/runtime" awslambdaric boto3
cat >"$folder/var/runtime/bootstrap" <<'BOOTSTRAP'
#!/bin/sh
cd "${LAMBDA_TASK_ROOT:=/var/task}"
export LAMBDA_TASK_ROOT PYTHONPATH="$LAMBDA_TASK_ROOT:/opt/python:/var/runtime"
exec /usr/bin/python3 -m awslambdaric "${_HANDLER:-$AWS_LAMBDA_FUNCTION_HANDLER}"
BOOTSTRAP
chmod 755 "$folder/var/runtime/bootstrap"
mkdir -p "$folder/var/task" "$folder/opt"
tar -C "$folder" --exclude=./dev --exclude=./proc --exclude=./sys -c . |
    docker import --change 'WORKDIR /var/task' --change 'ENV PATH=/usr/local/bin:/usr/bin:/bin' \
        - "$tag" >/dev/null
echo "Made $tag"
