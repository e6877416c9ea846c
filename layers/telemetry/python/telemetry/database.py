"""The one connection of an execution environment to PostgreSQL."""

import math
import random
import select
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from select import POLLIN, POLLOUT
from typing import Any, TypeVar

import psycopg
from psycopg import generators
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo
from psycopg.errors import (
    CheckViolation,
    ConnectionTimeout,
    DeadlockDetected,
    QueryCanceled,
    ReadOnlySqlTransaction,
    SerializationFailure,
    error_from_result,
)
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.waiting import wait_conn

from telemetry.credentials import Password
from telemetry.errors import DatabaseUnavailable

# Seconds to connect and, by default, for a call: connecting and all tries together. The functions'
# timeout of 10 s is well beyond. The server itself gives up a statement a second earlier
# (statement_timeout of the roles), which leaves the connection in use.
CONNECT_TIMEOUT = 2.0
TIME_LIMIT = 6.0
# Where nobody waits for an answer: RDS looks tokens up elsewhere, which may take seconds.
PATIENT_TIMEOUT = 30.0
# Seconds that a new execution environment may take to connect before its first request.
OPEN_TIMEOUT = 1.0
# Seconds after which a connection that was not used is opened anew: in AWS' networks one is
# forgotten after 350, and neither end is told.
MOST_IDLE = 240.0
# Milliseconds after which a peer that acknowledges nothing counts as gone.
TCP_USER_TIMEOUT = 3000
# How often a statement that lost to another transaction is run again, and after how many seconds
# the first time. (PostgreSQL looks for a deadlock after a second.)
MOST_CONFLICTS = 4
CONFLICT_PAUSE = 0.02

Row = tuple[Any, ...]
Result = TypeVar("Result")


class Connection(psycopg.Connection[Row]):
    """Waits for the server until its deadline (in monotonic seconds) and no longer.

    Nothing else ends the wait for a server that is frozen: not its statement_timeout, and neither
    keepalives nor tcp_user_timeout, for its kernel still acknowledges every packet.
    """

    deadline = math.inf

    def wait(
        self, gen: PQGen[Result], interval: float = 0.1, timeout: float | None = None
    ) -> Result:
        """Raise psycopg.OperationalError at the deadline, and close: the server is at it still."""
        left = max(0.0, self.deadline - time.monotonic())
        try:
            return super().wait(gen, interval, left if timeout is None else min(left, timeout))
        except psycopg.OperationalError:
            if time.monotonic() >= self.deadline:
                self.close()
            raise

    def call(
        self, statement: bytes, types: Sequence[int], values: Sequence[bytes | None]
    ) -> list[bytes | None]:
        """Run a statement with parameters in PostgreSQL's binary form; return its row's texts.

        Does what execute does, on the same connection, in a third of its time: adapting Python
        objects and waiting by a generator take 150 µs more of a processor that was waiting for the
        disk. Raises psycopg.Error.
        """
        pgconn = self.pgconn
        pgconn.send_query_params(statement, values, types, [Format.BINARY] * len(values))
        unsent = pgconn.flush()
        poll = select.poll()
        while unsent or pgconn.is_busy():
            poll.register(pgconn.socket, POLLIN | POLLOUT if unsent else POLLIN)
            if not poll.poll(max(0.0, self.deadline - time.monotonic()) * 1000):
                raise psycopg.OperationalError("the server did not answer in time")
            pgconn.consume_input()
            unsent = unsent and pgconn.flush()
        failed, row = None, []
        while result := pgconn.get_result():
            if result.status == ExecStatus.TUPLES_OK:
                row = [result.get_value(0, column) for column in range(result.nfields)]
            else:
                failed = failed or error_from_result(result)
        if pgconn.status == ConnStatus.BAD:
            raise psycopg.OperationalError("the connection broke") from failed
        if failed:
            raise failed
        return row


def connect(
    url: str,
    *,
    password: Password | None = None,
    autocommit: bool = True,
    time_limit: float = CONNECT_TIMEOUT,
) -> Connection:
    """Open a connection that RDS Proxy can multiplex: nothing is prepared, no session state.

    password is asked where the URL has none. Raises psycopg.OperationalError, and of these
    ConnectionTimeout where the server did not answer in time.
    """
    secret = password(url) if password else None
    # As Connection.connect does, whose time limit is in whole seconds for each address.
    began = time.monotonic()
    conninfo = make_conninfo(url, password=secret, tcp_user_timeout=TCP_USER_TIMEOUT)
    try:
        pgconn = wait_conn(generators.connect(conninfo), interval=0.1, timeout=time_limit)
    except psycopg.OperationalError as error:
        if time.monotonic() - began < time_limit:
            raise
        raise ConnectionTimeout(f"no connection within {time_limit:.1f} s") from error
    connection = Connection(pgconn)
    connection.autocommit = autocommit
    connection.prepare_threshold = None
    return connection


class Database:
    """Opens its connection when first used, keeps it, and reopens it once when it broke."""

    def __init__(
        self, url: str, time_limit: float = TIME_LIMIT, password: Password | None = None
    ) -> None:
        self._url = url
        self._time_limit = time_limit
        self._password = password
        self._connection: Connection | None = None
        # By the wall clock, which goes on while an execution environment is frozen.
        self._used_at = 0.0

    def open(self) -> None:
        """Connect before it is asked for; where that fails, the next call tries again.

        While an execution environment starts: it has a whole processor then, and no request waits.
        """
        with suppress(psycopg.OperationalError):
            self._connect(OPEN_TIMEOUT)

    def fetch(self, statement: str, params: Sequence[Any] | dict[str, Any] = ()) -> list[Row]:
        """Run one statement in its own transaction: one round trip, and return its rows.

        It has to be safe to run twice: it is run again, once, when the connection broke or the
        server is no longer the writer, and a few times when PostgreSQL chose it to end a deadlock
        or could not serialize it; all within the time limit. Raises DatabaseUnavailable.
        """
        return self._run(lambda connection: connection.execute(statement, params).fetchall())

    def call(
        self,
        statement: bytes,
        types: Sequence[int],
        values: Sequence[bytes | None],
        more_time: float = 0.0,
    ) -> list[bytes | None]:
        """Run one statement as fetch does, with parameters in binary (see Connection.call).

        more_time (seconds) is added to the time limit.
        """
        return self._run(lambda connection: connection.call(statement, types, values), more_time)

    def _run(self, act: Callable[[Connection], Result], more_time: float = 0.0) -> Result:
        deadline = time.monotonic() + self._time_limit + more_time
        reopened, conflicts = False, 0
        if time.time() - self._used_at > MOST_IDLE:
            self.close()
        while True:
            try:
                if self._connection is None or self._connection.closed:
                    connection = self._connect(min(deadline - time.monotonic(), CONNECT_TIMEOUT))
                else:
                    connection = self._connection
                connection.deadline = deadline
                result = act(connection)
                self._used_at = time.time()
                return result
            except (DeadlockDetected, SerializationFailure) as error:
                conflicts += 1
                if conflicts > MOST_CONFLICTS:
                    raise DatabaseUnavailable(
                        "Other requests kept changing the same data; send the request again"
                    ) from error
                # The other one has to get what this one let go of.
                time.sleep(random.uniform(0.5, 1) * CONFLICT_PAUSE * conflicts)  # noqa: S311
            except (
                psycopg.OperationalError,
                psycopg.InterfaceError,
                psycopg.InternalError,
                CheckViolation,  # the bounds of a default partition that is about to be another
            ) as error:
                too_late = time.monotonic() >= deadline
                said = self._describe(error, too_late=too_late)
                if too_late or isinstance(error, ReadOnlySqlTransaction):
                    self.close()
                if reopened or too_late or not self._broken:
                    raise DatabaseUnavailable(said) from error
                reopened = True

    @property
    def _broken(self) -> bool:
        return self._connection is None or self._connection.closed

    def _describe(self, error: psycopg.Error, *, too_late: bool) -> str:
        """Return what a client is told of an error, whose reason is in the log."""
        if isinstance(error, QueryCanceled):
            return "The database took too long and gave up; send the request again, or ask for less"
        if too_late:
            return "The database did not answer in time; send the request again"
        if self._broken:
            return str(DatabaseUnavailable())
        return "The database does not take the request now; send it again"

    def _connect(self, time_limit: float) -> Connection:
        self._connection = connect(self._url, password=self._password, time_limit=time_limit)
        self._used_at = time.time()
        return self._connection

    def close(self) -> None:
        """Close the connection; the next fetch opens another."""
        if self._connection is not None:
            self._connection.close()
