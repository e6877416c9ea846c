"""The queue server's own process, `python -m local.queue_process`: MiniStack.

It writes what it keeps to its folder when it is told to end. Tables do not wait for that: as on
AWS, what is put into one is durable when that is answered, so no crash lets a revoked token in.
"""

from typing import Any

from ministack.app import main
from ministack.core.persistence import save_state
from ministack.services import dynamodb

READING = ("BatchGet", "Describe", "Get", "List", "Query", "Scan")


def write_tables_through() -> None:
    """Have each operation that may change a table write all of them before it answers."""
    handle = dynamodb.handle_request

    async def handle_durably(method: str, path: str, headers: dict[str, str], *rest: Any) -> Any:
        answer = await handle(method, path, headers, *rest)
        if not headers.get("x-amz-target", "").rpartition(".")[2].startswith(READING):
            save_state("dynamodb", dynamodb.get_state())
        return answer

    dynamodb.handle_request = handle_durably


if __name__ == "__main__":
    write_tables_through()
    main()
