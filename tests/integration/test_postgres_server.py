"""The server that `make run` and these tests start, where root may not make user namespaces."""

import os
from pathlib import Path

import psycopg
import pytest

from local import postgres


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become another user")
def test_root_starts_it_without_user_namespaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "only root may enter"
    hidden.mkdir(mode=0o700)
    data = hidden / "postgres"
    first = postgres.start_postgres(data, postgres.embedded_binaries())
    first.stop()
    monkeypatch.setattr(postgres, "_user_namespaces_work", lambda: False)
    running = postgres.start_postgres(data, postgres.embedded_binaries())
    try:
        with psycopg.connect(running.url) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert Path(f"/proc/{running.process.pid}").stat().st_uid == postgres.UNPRIVILEGED_ID
    finally:
        running.stop()

    fresh = postgres.start_postgres(hidden / "fresh", postgres.embedded_binaries())
    fresh.stop()
