"""What the environment tells an entry point."""

from collections.abc import Mapping
from dataclasses import dataclass

from telemetry.errors import SettingMissing


@dataclass(frozen=True)
class Settings:
    """Read once by each entry point, when its execution environment starts.

    database_url -- libpq connection URI of PostgreSQL or of the proxy before it (`DATABASE_URL`)
    """

    database_url: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "Settings":
        """Raise SettingMissing, naming the variable, where one that is needed is not set."""
        try:
            return cls(database_url=environ["DATABASE_URL"])
        except KeyError as error:
            raise SettingMissing(str(error.args[0])) from None
