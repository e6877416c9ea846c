"""The database of a server of our own and its three users: who owns, who writes, who reads.

None of them is a superuser, as on a managed server: what works here works there.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from psycopg import sql

from local.postgres import RunningPostgres
from telemetry.database import connect

OWNER, INGEST, READ = "telemetry_owner", "telemetry_ingest", "telemetry_read"


@dataclass(frozen=True)
class DatabaseUrls:
    """How each user reaches one database."""

    owner: str
    ingest: str
    read: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "DatabaseUrls":
        """Return the variables DATABASE_URL, INGEST_DATABASE_URL and READ_DATABASE_URL.

        Where only the first is set, one user does everything.
        """
        owner = environ["DATABASE_URL"]
        return cls(
            owner,
            environ.get("INGEST_DATABASE_URL") or owner,
            environ.get("READ_DATABASE_URL") or owner,
        )

    @property
    def environment(self) -> dict[str, str]:
        """The variables that from_environment reads."""
        return {
            "DATABASE_URL": self.owner,
            "INGEST_DATABASE_URL": self.ingest,
            "READ_DATABASE_URL": self.read,
        }

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters of template.yaml."""
        return {
            "OwnerDatabaseUrl": self.owner,
            "IngestDatabaseUrl": self.ingest,
            "ReadDatabaseUrl": self.read,
        }


def database_urls(server: RunningPostgres, name: str) -> DatabaseUrls:
    """Return how the three users reach a database of the server."""
    address = urlsplit(server.url).netloc.rpartition("@")[2]
    return DatabaseUrls(
        *(
            f"postgresql://{user}:{password_of(server, user)}@{address}/{name}"
            for user in (OWNER, INGEST, READ)
        )
    )


def password_of(server: RunningPostgres, user: str) -> str:
    """Return a user's password: another on each server, the same at each start."""
    key = urlsplit(server.url).password or ""
    return hmac.new(key.encode(), user.encode(), "sha256").hexdigest()


def make_database(server: RunningPostgres, name: str) -> None:
    """Make the database and its owner where they do not exist."""
    with connect(server.url) as admin:
        if not admin.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (OWNER,)).fetchone():
            # CREATEROLE, as the master user of a managed server has: migrations make the others.
            admin.execute(
                sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(
                    sql.Identifier(OWNER), sql.Literal(password_of(server, OWNER))
                )
            )
        if not admin.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone():
            admin.execute(
                sql.SQL("CREATE DATABASE {} OWNER {}").format(
                    sql.Identifier(name), sql.Identifier(OWNER)
                )
            )


def admit_users(server: RunningPostgres) -> None:
    """Give the users that the migrations made their passwords."""
    with connect(server.url) as admin:
        for user in (INGEST, READ):
            admin.execute(
                sql.SQL("ALTER ROLE {} PASSWORD {}").format(
                    sql.Identifier(user), sql.Literal(password_of(server, user))
                )
            )
