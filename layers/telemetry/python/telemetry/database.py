"""The one connection of an execution environment to PostgreSQL."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.errors import DeadlockDetected, ReadOnlySqlTransaction, SerializationFailure

from telemetry.arrays import register_arrays
from telemetry.errors import DatabaseUnavailable

# Seconds for each address of the host; inside the functions' timeout of 10 s also when tried
# twice.
CONNECT_TIMEOUT = 2
# Milliseconds after which a peer that acknowledges nothing counts as gone.
TCP_USER_TIMEOUT = 3000

Row = tuple[Any, ...]


def connect(url: str, *, autocommit: bool = True) -> psycopg.Connection[Row]:
    """Open a connection that RDS Proxy can multiplex: nothing is prepared, no session state.

    Raises psycopg.OperationalError.
    """
    connection = psycopg.connect(
        url,
        autocommit=autocommit,
        prepare_threshold=None,
        connect_timeout=CONNECT_TIMEOUT,
        tcp_user_timeout=TCP_USER_TIMEOUT,
    )
    register_arrays(connection)
    return connection


class Database:
    """Opens its connection when first used, keeps it, and reopens it once when it broke."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.Connection[Row] | None = None

    def fetch(self, statement: str, params: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        """Run one statement in its own transaction: one round trip, and return its rows.

        A statement that failed because the connection broke, because PostgreSQL chose it to end a
        deadlock, or because the server is no longer the writer, is run a second time: it has to be
        safe to run twice.
        Raises DatabaseUnavailable.
        """
        try:
            return self._fetch_once(statement, params)
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            broken = self._connection is None or self._connection.closed
            if not broken and not isinstance(error, DeadlockDetected | SerializationFailure):
                raise DatabaseUnavailable from error
        except ReadOnlySqlTransaction:
            self.close()  # this server was the writer: a new connection finds the one that is now
        try:
            return self._fetch_once(statement, params)
        except (
            psycopg.OperationalError,
            psycopg.InterfaceError,
            ReadOnlySqlTransaction,
        ) as error:
            raise DatabaseUnavailable from error

    def _fetch_once(self, statement: str, params: Sequence[Any] | dict[str, Any]) -> list[Row]:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._url)
        return self._connection.execute(statement, params).fetchall()

    def close(self) -> None:
        """Close the connection; the next fetch opens another."""
        if self._connection is not None:
            self._connection.close()
