"""A bucket of S3."""

from pathlib import Path
from typing import Any

from telemetry.errors import ArchiveUnavailable


class Bucket:
    """Puts files there and gets them back; connects when first used."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._client: Any = None

    def put(self, file: Path, key: str) -> None:
        """Make a file the object of that key, whole or not at all. Raises ArchiveUnavailable."""
        self._run("upload_file", str(file), self._name, key)

    def get(self, key: str, file: Path) -> None:
        """Fetch an object. Raises ArchiveUnavailable."""
        self._run("download_file", self._name, key, str(file))

    def delete(self, key: str) -> None:
        """Delete an object, or nothing where there is none. Raises ArchiveUnavailable.

        In a bucket with versions it stays as one that is not current any more.
        """
        self._run("delete_object", Bucket=self._name, Key=key)

    def _run(self, operation: str, *arguments: str, **named: str) -> None:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if self._client is None:
                from boto3.session import Session

                self._client = Session().client("s3")
            getattr(self._client, operation)(*arguments, **named)
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise ArchiveUnavailable(self._name, str(error)) from error
