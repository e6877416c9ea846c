"""SQS, SNS, EventBridge, DynamoDB and S3: MiniStack's, started, kept running, and stopped.

Like the PostgreSQL server it listens on loopback only, and serves only who knows its key. It keeps
its messages in memory and writes them to its folder when it is told to end: a crash loses them.
Objects of the archive and revoked tokens are files there from the first.
"""

import json
import os
import secrets
import sys
import time
import urllib.request
from pathlib import Path

from local import LocalError
from local.configuration import ACCOUNT, FAULT_TOPIC, REGION
from local.folder import write_file
from local.postgres import free_port
from local.processes import KeptProcess, Process
from local.template import Queue, Table

START_SECONDS = 60


class QueueServer:
    """The server, its queues, and how clients reach them."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self._folder = folder
        self._port = port or free_port()
        # The server knows its clients by the key's id alone: that is the secret.
        self._key_id = secrets.token_hex(16)
        self._queues: tuple[Queue, ...] = ()
        self._tables: tuple[Table, ...] = ()
        self._kept = KeptProcess("the queue server", self._start_process, self._prepare)

    @property
    def endpoint(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a function's clients reach it."""
        return {
            "AWS_ENDPOINT_URL_SNS": self.endpoint,
            "AWS_ENDPOINT_URL_EVENTBRIDGE": self.endpoint,
            "AWS_ENDPOINT_URL_SQS": self.endpoint,
            "AWS_ENDPOINT_URL_DYNAMODB": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            # Lambda sets both of these.
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": self._key_id,
            "AWS_SECRET_ACCESS_KEY": self._key_id,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }

    def start(self, queues: tuple[Queue, ...], tables: tuple[Table, ...] = ()) -> None:
        """Begin to start it and to make the queues; await_queues tells when that is done."""
        self._queues, self._tables = queues, tables
        (self._folder / "sqs.log").unlink(missing_ok=True)
        self._kept.start()

    def await_queues(self) -> None:
        """Return when the queues are there. Raises LocalError."""
        self._kept.await_prepared()

    def stop(self) -> None:
        """Write the messages to the folder and end."""
        self._kept.stop()

    def _start_process(self) -> Process:
        state = self._folder / "sqs"
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self._port),
            "SERVICES": "sqs,sns,events,dynamodb,s3",
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "PERSIST_STATE": "1",
            "STATE_DIR": str(state),
            "S3_PERSIST": "1",  # at once: what is in the archive is nowhere else
            "S3_DATA_DIR": str(self._folder / "s3"),
            "TMPDIR": str(state),
            "LOG_LEVEL": "WARNING",
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": REGION,
            "AUTH": "true",
            "AWS_ACCESS_KEY_ID": self._key_id,
            "AWS_SECRET_ACCESS_KEY": self._key_id,
            # At its start it removes containers that it made, or that another MiniStack did.
            "DOCKER_HOST": f"unix://{state}/none",
        }
        return Process(
            [sys.executable, "-m", "local.queue_process"],
            # What is loaded into every process may be a clock, as the tests have it: one for all.
            {
                "PATH": os.environ.get("PATH", os.defpath),
                "LD_PRELOAD": os.environ.get("LD_PRELOAD", ""),
                **settings,
            },
            self._folder / "sqs.log",
        )

    def _prepare(self, process: Process) -> None:
        # Takes half a second to load, which starts nowhere else: here something else goes on.
        from botocore.exceptions import BotoCoreError, ClientError

        from local.queues import connect, make_bucket, make_queues, make_tables

        client = connect(self.environment)
        self._await_answer(process)
        try:
            urls = make_queues(client, self._queues)
            connect(self.environment, "sns").create_topic(Name=FAULT_TOPIC)
            if self._tables:
                make_tables(connect(self.environment, "dynamodb"), self._tables)
            make_bucket(self.environment)
        except (BotoCoreError, ClientError) as error:
            raise LocalError(f"the queues cannot be made: {error}") from error
        write_file(self._folder, "sqs.json", json.dumps(self.environment) + "\n")
        write_file(self._folder, "queues.json", json.dumps(urls) + "\n")

    def _await_answer(self, process: Process) -> None:
        deadline = time.monotonic() + START_SECONDS
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while True:
            try:
                opener.open(f"{self.endpoint}/_ministack/health", timeout=5).close()
                return
            except OSError as error:
                if process.ended or time.monotonic() > deadline:
                    log = self._folder / "sqs.log"
                    raise LocalError(f"the queues cannot be served: see {log}") from error
                time.sleep(0.02)
