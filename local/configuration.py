"""template.yaml as it is meant on this machine: what its parameters and queues are here."""

from collections.abc import Mapping
from dataclasses import replace

from local import ROOT, LocalError
from local.databases import DatabaseUrls
from local.template import Template, queue_names, read_template

TEMPLATE = ROOT / "template.yaml"
# Where a server of queues is that nobody named: LocalStack's address.
DEFAULT_ENDPOINT = "http://localhost:4566"
# The variables that give parameters another value than on AWS.
PARAMETERS = {
    "INGEST_MODE": "IngestMode",
    "PAIRING": "Pairing",
    "HISTORY_RETENTION": "HistoryRetention",
    "TOKEN_KEYS": "TokenKeys",
    "AUTHORIZER_CACHE_SECONDS": "AuthorizerCacheSeconds",
    "DEVICE_RATE": "DeviceRate",
    "DEVICE_BURST": "DeviceBurst",
}
ACCOUNT = "000000000000"
REGION = "eu-central-1"
# The bucket of the archive.
ARCHIVE = "archive"
FAULT_TOPIC = "FaultTopic"


def queue_arn(name: str) -> str:
    """Return the ARN of a queue."""
    return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"


def queue_url(endpoint: str, name: str) -> str:
    """Return the URL of a queue on the server at an endpoint."""
    return f"{endpoint}/{ACCOUNT}/{name}"


def queue_references(endpoint: str) -> dict[str, str]:
    """Return what `!Ref` and `!GetAtt` of the queues and the topic in template.yaml mean."""
    references = {FAULT_TOPIC: f"arn:aws:sns:{REGION}:{ACCOUNT}:{FAULT_TOPIC}"}
    for name in queue_names(TEMPLATE):
        references[name] = queue_url(endpoint, name)
        references[f"{name}.Arn"] = queue_arn(name)
        references[f"{name}.QueueName"] = name
    return references


def read_local_template(environ: Mapping[str, str]) -> Template:
    """Return template.yaml with the databases, the queues and the modes that the variables name.

    They are those of DatabaseUrls, AWS_ENDPOINT_URL_SQS, REPLICA_DATABASE_URL and PARAMETERS. AUTH
    may be `token`; else, unlike on AWS, whoever reaches this machine may do everything. Raises
    LocalError.
    """
    values = {
        **DatabaseUrls.from_environment(environ).parameters,
        **queue_references(environ.get("AWS_ENDPOINT_URL_SQS", DEFAULT_ENDPOINT)),
        "ReplicaDatabaseUrl": environ.get("REPLICA_DATABASE_URL", ""),
        "ArchiveBucket": ARCHIVE,
        "AWS::StackName": "local",
    }
    for variable, parameter in PARAMETERS.items():
        if environ.get(variable):
            values[parameter] = environ[variable]
    template = read_template(TEMPLATE, values)
    return template if asks_for_tokens(environ) else _open(template)


def asks_for_tokens(environ: Mapping[str, str]) -> bool:
    """Return whether requests need a token here. Raises LocalError."""
    mode = environ.get("AUTH") or "none"
    if mode not in {"none", "token"}:
        raise LocalError(f"AUTH is one of none, token, not {mode}")
    return mode == "token"


def _open(template: Template) -> Template:
    return replace(
        template,
        routes=tuple(replace(route, authorizer=None) for route in template.routes),
        functions={
            name: replace(function, environment={**function.environment, "AUTH": "none"})
            for name, function in template.functions.items()
        },
    )
