"""What the environment tells an entry point."""

from collections.abc import Mapping

from telemetry.errors import SettingInvalid, SettingMissing


class Settings:
    """Environment variables, each read by the entry points that need it, as they are loaded.

    Every property raises SettingMissing where its variable is not set.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    @property
    def database_url(self) -> str:
        """`DATABASE_URL`: libpq connection URI of PostgreSQL or of the proxy before it."""
        return self._read("DATABASE_URL")

    @property
    def queue_url(self) -> str:
        """`QUEUE_URL`: the SQS queue of the function's stream."""
        return self._read("QUEUE_URL")

    @property
    def dead_letter_queue_url(self) -> str:
        """`DEAD_LETTER_QUEUE_URL`: where messages go that can never be stored."""
        return self._read("DEAD_LETTER_QUEUE_URL")

    @property
    def queue_first(self) -> bool:
        """`INGEST_MODE`: `queue` sends every reading through the queue, `database` does not.

        Raises SettingInvalid on any other value.
        """
        mode = self._read("INGEST_MODE")
        if mode not in {"database", "queue"}:
            raise SettingInvalid("INGEST_MODE", mode, "database or queue")
        return mode == "queue"

    def _read(self, name: str) -> str:
        try:
            return self._environ[name]
        except KeyError:
            raise SettingMissing(name) from None
