"""The layers as `sam build` makes them: small, compiled, the same each time."""

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from local import ROOT
from local.configuration import read_local_template

MOST_BYTES = {"Dependencies": 30_000_000, "Authorizer": 19_000_000, "Telemetry": 2_000_000}
FUNCTIONS = read_local_template({"DATABASE_URL": "postgresql://nobody@localhost/none"}).functions
MACHINES = {"arm64": "aarch64", "x86_64": "x86_64"}


def build(layer: str, folder: Path, architecture: str, **environ: str) -> Path:
    make(ROOT / "layers" / layer.lower(), f"{layer}Layer", folder, architecture, **environ)
    return folder / "python"


def make(source: Path, resource: str, folder: Path, architecture: str, **environ: str) -> None:
    subprocess.run(
        ["make", "-s", "-C", source, f"build-{resource}"],
        env={
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ARCHITECTURE": architecture,
            "ARTIFACTS_DIR": str(folder),
            **environ,
        },
        check=True,
        timeout=300,
    )


def runtime() -> str | None:
    """Return a Python of the functions' version, where there is one."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    named = os.environ.get("RUNTIME_PYTHON") or shutil.which("python3.13")
    for candidate in [named, *map(str, pyenv.glob("versions/3.13*/bin/python3.13"))]:
        if candidate and subprocess.run([candidate, "-c", ""], check=False).returncode == 0:
            return candidate
    return None


def contents(folder: Path) -> Mapping[str, tuple[str, float]]:
    return {
        str(file.relative_to(folder)): (sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime)
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("architecture", MACHINES)
def test_layers_are_small_and_the_same_each_time(architecture: str, tmp_path: Path) -> None:
    bytecode = "required" if runtime() else "optional"
    for layer, most in MOST_BYTES.items():
        built = [
            build(layer, tmp_path / f"{layer}{number}", architecture, BYTECODE=bytecode)
            for number in (1, 2)
        ]
        first, second = map(contents, built)
        assert first == second
        assert sum((built[0] / name).stat().st_size for name in first) <= most
        if layer != "Telemetry":
            # The runtime has it.
            assert not any(name.startswith(("boto", "s3transfer")) for name in first)
            machines = re.compile(rf"\.cpython-313-{MACHINES[architecture]}-linux-gnu\.so$")
            extensions = [name for name in first if ".cpython-" in name and name.endswith(".so")]
            assert extensions
            assert [name for name in extensions if not machines.search(name)] == []
        compiled = {name for name in first if name.endswith(".pyc")}
        if bytecode == "required":
            for name in first:
                if name.endswith(".py"):
                    folder, _, module = name.rpartition("/")
                    cached = f"{folder}/__pycache__/{module[:-3]}.cpython-313.pyc".lstrip("/")
                    assert cached in compiled
            # Whether the source changed is not asked for: flags 1, a hash that is not checked.
            assert {(built[0] / name).read_bytes()[4:8] for name in compiled} == {b"\1\0\0\0"}
    if bytecode == "optional":
        pytest.skip("no Python 3.13 here: the layers were built without bytecode")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the layers are built for x86_64")
def test_each_entry_point_loads_from_the_layers_alone(tmp_path: Path) -> None:
    python = runtime()
    if python is None:
        pytest.skip("no Python 3.13 here")
    layers = {layer: str(build(layer, tmp_path / layer, "x86_64")) for layer in MOST_BYTES}
    of_authorizer = layers.pop("Authorizer")
    names = ("REGION", "DEFAULT_REGION", "ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN")
    by_lambda = {f"AWS_{name}": "any" for name in names}
    for function in FUNCTIONS.values():
        paths, folder = [*layers.values()], function.file.parent
        if (folder / "Makefile").exists():  # it brings packages of its own
            make(folder, function.name, tmp_path / function.name, "x86_64")
            folder = tmp_path / function.name
        if function.name == "AuthorizerFunction":
            paths.append(of_authorizer)
        subprocess.run(
            [python, "-S", "-c", f"import {function.file.stem} as it; it.{function.attribute}"],
            env={**function.environment, **by_lambda, "PYTHONPATH": ":".join(paths)},
            cwd=folder,
            check=True,
        )
    zone = "from telemetry.zones import parse_zone; parse_zone('Asia/Kolkata')"
    environment = {
        "PYTHONPATH": ":".join(layers.values()),
        "PYTHONTZPATH": "",
    }  # no zones of the system
    subprocess.run([python, "-S", "-c", zone], env=environment, check=True)


MISSING = {
    "RUNTIME_PYTHON": "/nowhere",
    "PYENV_ROOT": "/nowhere",
    "UV_OFFLINE": "1",
    "UV_PYTHON_INSTALL_DIR": "/nowhere",
}


def test_a_build_without_the_runtime_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        build("Telemetry", tmp_path / "required", "arm64", **MISSING)
    said = capfd.readouterr().err
    assert "set RUNTIME_PYTHON to one\nerror: BYTECODE=optional does without" in said
    built = build("Telemetry", tmp_path / "optional", "arm64", BYTECODE="optional", **MISSING)
    assert not list(built.rglob("*.pyc"))


def test_the_emulator_without_the_runtime_says_so(tmp_path: Path) -> None:
    for name in ("Makefile", "layers/runtime_python.sh", "requirements/ministack.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    made = subprocess.run(
        ["make", "-o", ".venv/dev", f"BIN={Path(sys.executable).parent}", ".venv/ministack"],
        cwd=tmp_path,
        env={**MISSING, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.stderr.splitlines()[0] == (
        "No Python 3.13 here, and uv cannot fetch one: set RUNTIME_PYTHON to one"
    )
