#!/usr/bin/env bash
# Usage: AWS_ENDPOINT_URL=http://localhost:4566 localstack/deploy.sh [NAME=VALUE ...]
#
# Builds template.yaml for this machine's processor and deploys it to the emulator of AWS at that
# address, MiniStack or LocalStack; prints where the API is. NAME=VALUE are parameters of the
# template. DATABASE_URL, INGEST_, READ_, ALERTS_, CORRECT_ and MAINTAIN_DATABASE_URL are how the functions
# reach PostgreSQL; without them, the one of localstack/compose.yaml.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "error: $*" >&2
    exit 1
}

answers() {
    curl --silent --fail --output /dev/null --max-time 10 --noproxy '*' "$AWS_ENDPOINT_URL/$1"
}

[ -n "${AWS_ENDPOINT_URL:-}" ] || fail "AWS_ENDPOINT_URL is not set: this is for emulators alone"
command -v curl >/dev/null || fail "curl not found"
# MiniStack answers to LocalStack's name as well.
if answers _ministack/health; then
    emulator=ministack
elif answers _localstack/health; then
    emulator=localstack
else
    fail "no emulator answers at $AWS_ENDPOINT_URL: start it (localstack/README.md)"
fi

if [ "$(uname -m)" = x86_64 ]; then architecture=x86_64; else architecture=arm64; fi
make --no-print-directory build ARCHITECTURE=$architecture

# Nobody's credentials, and straight there.
unset AWS_PROFILE AWS_SESSION_TOKEN
export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test AWS_CONFIG_FILE=/dev/null \
    AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_REGION=eu-central-1 AWS_DEFAULT_REGION=eu-central-1 \
    AWS_ENDPOINT_URL SAM_CLI_TELEMETRY=0 NO_PROXY='*' no_proxy='*'

if [ -n "${DATABASE_URL:-}" ]; then
    owner=$DATABASE_URL
    ingest=${INGEST_DATABASE_URL:-$owner} read=${READ_DATABASE_URL:-$owner}
    alerts=${ALERTS_DATABASE_URL:-$owner} correct=${CORRECT_DATABASE_URL:-$owner}
    maintain=${MAINTAIN_DATABASE_URL:-$owner}
else
    owner=postgresql://telemetry_owner@postgres:5432/telemetry
    maintain=postgresql://telemetry_maintain@postgres:5432/telemetry
    ingest=postgresql://telemetry_ingest@pgbouncer:6432/telemetry
    read=postgresql://telemetry_read@pgbouncer:6432/telemetry
    alerts=postgresql://telemetry_alerts@pgbouncer:6432/telemetry
    correct=postgresql://telemetry_correct@pgbouncer:6432/telemetry
fi
# Whatever is given on the command line comes last, and counts.
parameters=(
    Monitoring=false "Architecture=$architecture" "OwnerDatabaseUrl=$owner"
    "IngestDatabaseUrl=$ingest" "ReadDatabaseUrl=$read" "AlertsDatabaseUrl=$alerts" "CorrectDatabaseUrl=$correct"
    "MaintainDatabaseUrl=$maintain" "$@"
)

.venv/bin/python - <<'PYTHON'
import boto3

s3 = boto3.client("s3")
if "deployments" not in [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]:
    region = {"LocationConstraint": s3.meta.region_name}
    s3.create_bucket(Bucket="deployments", CreateBucketConfiguration=region)
PYTHON

# SAM leaves an empty folder there of each function that it packages.
TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

sam() {
    .venv-sam/bin/sam "$@" --config-file "$PWD/samconfig.toml" --config-env localstack
}

template=.aws-sam/build/template.yaml
if [ $emulator = ministack ]; then
    sam package --template-file $template --output-template-file .aws-sam/packaged.yaml \
        --no-progressbar >/dev/null
    .venv/bin/python -m localstack.expand .aws-sam/packaged.yaml "${parameters[@]}" \
        >.aws-sam/expanded.json
    template=.aws-sam/expanded.json
fi
sam deploy --no-progressbar --template-file $template --parameter-overrides "${parameters[@]}"

api=$(.venv/bin/python - <<'PYTHON'
import boto3

[stack] = boto3.client("cloudformation").describe_stacks(StackName="energy-ingestion-engine")["Stacks"]
[url] = [each["OutputValue"] for each in stack["Outputs"] if each["OutputKey"] == "ApiUrl"]
print(url.removeprefix("https://").partition(".")[0])
PYTHON
)
if [ $emulator = ministack ]; then
    echo "$AWS_ENDPOINT_URL/_aws/execute-api/$api/\$default"
else
    echo "http://$api.execute-api.localhost.localstack.cloud:${AWS_ENDPOINT_URL##*:}"
fi
