"""The migrations and functions of releases, as their databases have them.

`write()` adds those of this version: once for each release (CONTRIBUTING.md), never again.
"""

from pathlib import Path

from telemetry import __version__
from telemetry.migrate import Migration, shipped_migrations
from telemetry.stored_functions import FunctionFile, shipped_functions

FOLDER = Path(__file__).parent
RELEASES = sorted(path.name for path in FOLDER.iterdir() if (path / "migrations").is_dir())


def released_migrations(release: str) -> list[Migration]:
    files = sorted((FOLDER / release / "migrations").glob("*.sql"))
    return [Migration(file.stem, file.read_text(encoding="utf-8")) for file in files]


def released_functions(release: str) -> list[FunctionFile]:
    files = sorted((FOLDER / release / "functions").glob("*.sql"))
    return [FunctionFile(file.stem, file.read_text(encoding="utf-8")) for file in files]


def write() -> None:
    for kind, files in (("migrations", shipped_migrations()), ("functions", shipped_functions())):
        folder = FOLDER / __version__ / kind
        folder.mkdir(parents=True)
        for file in files:
            (folder / f"{file.name}.sql").write_text(file.statements, encoding="utf-8")
