"""`make token`: keys to sign tokens with, tokens, and tokens that are revoked.

Keys of this machine are in its folder; a key of a deployment is wherever its operator keeps it.
"""

import argparse
import json
import re
import secrets
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pydantic import ValidationError

from local import LocalError
from local.console import say
from local.folder import ACCEPTED_KEYS, read_file, running_pid, write_file
from telemetry.access import Scope
from telemetry.tokens import (
    ID_PATTERN,
    LONGEST_LIFE,
    Claims,
    TokenRefused,
    name_key,
    read_keys,
    sign_token,
    verify_token,
)

KEYS = "token-keys"
OWN_LIFE = timedelta(hours=1)


def run_action(folder: Path, options: argparse.Namespace) -> None:
    """Do what the options of `token` say. Raises LocalError."""
    if options.action == "key":
        _make_key(folder, options.file)
    elif options.action == "revoke":
        _revoke(folder, options)
    else:
        key = _load_key(options.key) if options.key else _newest_key(folder)
        claims = make_claims(
            options.subject,
            options.scope,
            options.meters.replace(",", " ").split(),
            options.vehicles.replace(",", " ").split(),
            timedelta(days=options.days),
        )
        try:
            token = sign_token(claims, key)
        except ValueError as error:
            raise LocalError(str(error)) from None
        print(
            f"Token {claims.jti} for {claims.sub}, until {_day(claims)}, shown only now:",
            file=sys.stderr,
        )
        say(token)


def make_claims(
    subject: str,
    scopes: Iterable[str],
    meters: Iterable[str] = (),
    vehicles: Iterable[str] = (),
    life: timedelta = OWN_LIFE,
) -> Claims:
    """Return what a new token says. Raises LocalError where it would not be accepted."""
    if not timedelta(0) < life <= LONGEST_LIFE:
        raise LocalError(f"a token is valid for 1 to {LONGEST_LIFE.days} days")
    now = int(time.time())
    try:
        return Claims(
            jti=secrets.token_hex(8),
            sub=subject,
            iat=now,
            exp=now + int(life.total_seconds()),
            scope=" ".join(dict.fromkeys(scopes)),
            meters=tuple(meters),
            vehicles=tuple(vehicles),
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise LocalError(f"{first['loc'][0]}: {first['msg']}: {first['input']!r}") from None


def _day(claims: Claims) -> str:
    return f"{datetime.fromtimestamp(claims.exp, UTC):%Y-%m-%d}"


def accept_keys(folder: Path) -> str:
    """Note that the system accepts the folder's keys, after making one where there is none.

    Return the public ones, as TOKEN_KEYS lists them.
    """
    if not list((folder / KEYS).glob("*.pem")):
        _store_key(folder)
    files = sorted((folder / KEYS).glob("*.pem"))
    listed = ",".join(name_key(_load_key(file).public_key()) for file in files)
    write_file(folder, ACCEPTED_KEYS, listed + "\n")
    return listed


def sign_own_token(folder: Path, *scopes: Scope) -> str:
    """Return a token of an hour for all devices, for the commands of this machine."""
    claims = make_claims("make", scopes, ["*"], ["*"])
    return sign_token(claims, _newest_key(folder))


def _newest_key(folder: Path) -> Ed25519PrivateKey:
    """Return the newest key that the system of the folder accepts."""
    accepted = read_file(folder, ACCEPTED_KEYS)
    files = sorted((folder / KEYS).glob("*.pem"), key=lambda file: file.stat().st_mtime)
    keys = [key for key in map(_load_key, files) if name_key(key.public_key()) in accepted]
    if not keys:
        raise LocalError("there is no key here yet: `make run AUTH=token` makes one")
    return keys[-1]


def _load_key(file: Path) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise LocalError(f"cannot read {file}: {error.strerror}") from None
    except (TypeError, ValueError):
        raise LocalError(f"{file} is not a private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise LocalError(f"{file} is not an Ed25519 key")
    return key


def _store_key(folder: Path, file: Path | None = None) -> str:
    """Make a key that only its owner can read; return the public one."""
    key = Ed25519PrivateKey.generate()
    listed = name_key(key.public_key())
    if file is None:
        (folder / KEYS).mkdir(mode=0o700, parents=True, exist_ok=True)
        file = folder / KEYS / f"{listed.partition(':')[0]}.pem"
    if file.exists():
        raise LocalError(f"{file} exists already")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        write_file(file.parent, file.name, pem.decode())
    except OSError as error:
        raise LocalError(f"cannot write {file}: {error.strerror}") from None
    return listed


def _make_key(folder: Path, file: Path | None) -> None:
    listed = _store_key(folder, file)
    if file:
        print("Add to the parameter TokenKeys, deploy, then sign with it:", file=sys.stderr)
        say(listed)
    else:
        say("Made a key; `make run AUTH=token` accepts it from its next start on.")


def _revoke(folder: Path, options: argparse.Namespace) -> None:
    # Nothing else here needs the client, which takes half a second to load.
    from botocore.exceptions import BotoCoreError, ClientError

    from local.queues import connect
    from telemetry.clients import open_client

    token_id, known = _identify(folder, options)
    if options.table:
        client = open_client("dynamodb", connect_timeout=5, read_timeout=5, attempts=3)
    elif running_pid(folder) is None:
        raise LocalError("nothing is running here: `make run`")
    else:
        client = connect(json.loads(read_file(folder, "sqs.json")), "dynamodb")
    try:
        note_revocation(client, options.table or "Revocations", token_id)
    except (BotoCoreError, ClientError) as error:
        raise LocalError(f"the token is NOT revoked: {error}") from None
    say(
        f"{known} is revoked. Who used it lately is refused when the gateway asks again: "
        "within 5 minutes, or AuthorizerCacheSeconds."
    )


def _identify(folder: Path, options: argparse.Namespace) -> tuple[str, str]:
    """Return the id of the token to revoke, and what is known of it. Raises LocalError."""
    if options.unseen:
        if not re.fullmatch(ID_PATTERN, options.token):
            raise LocalError("NOT revoked: no token has such an id")
        return options.token, f"Token {options.token}, if there is one (nothing here can check),"
    if options.table and not options.key:
        raise LocalError(
            "NOT revoked: with --table, --key names the key that signed the token, and is what it "
            "is checked by"
        )
    if options.key:
        accepted = name_key(_load_key(options.key).public_key())
    else:
        accepted = read_file(folder, ACCEPTED_KEYS)
    try:
        claims = verify_token(options.token, read_keys(accepted))
    except TokenRefused as refused:
        raise LocalError(
            f"NOT revoked: this is no token that would be accepted ({refused}). Give the token "
            "itself; or its id with --unseen, which nothing here can check"
        ) from None
    return claims.jti, f"Token {claims.jti} for {claims.sub}, valid until {_day(claims)},"


def note_revocation(client: Any, table: str, token_id: str) -> None:
    """Put a token into the table of revoked ones, for as long as it may be valid.

    client: of DynamoDB. Raises botocore's errors.
    """
    expires = int(time.time() + LONGEST_LIFE.total_seconds())
    client.put_item(
        TableName=table, Item={"tokenId": {"S": token_id}, "expiresAt": {"N": str(expires)}}
    )
