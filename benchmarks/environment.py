"""Environments with the peers at pinned versions, built once and kept in a cache outside the tree."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

INSTALL_TIMEOUT = 600
MARKER = "missing.json"


@dataclass(frozen=True, slots=True)
class Environment:
    """An interpreter with the pinned packages.

    Attributes:
        python: the interpreter.
        version: its version.
        pins: package to version, of those that are installed.
        missing: requirement to the reason why it could not be installed.
    """

    python: Path
    version: str
    pins: dict[str, str]
    missing: dict[str, str]


def default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pyresilience-benchmarks"


def prepare(pins: Path, cache: Path, interpreter: str | None = None) -> Environment:
    """The environment for a file of pins: every package with its dependencies, one `name==version` a line.

    A requirement that cannot be installed is left out and named in `missing`; the next run tries it again.

    Raises:
        SystemExit: uv is not there, or the interpreter is not.
    """
    requirements = read_pins(pins.read_text())
    interpreter = interpreter or sys.executable
    version = _version(interpreter)
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]
    folder = cache / f"{pins.stem}-{version}-{digest}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    marker = folder / MARKER
    missing: dict[str, str] = json.loads(marker.read_text()) if marker.exists() else {}
    if missing or not marker.exists():
        if not python.exists():
            shutil.rmtree(folder, ignore_errors=True)
            _uv("venv", "--quiet", "--python", interpreter, str(folder))
        missing = _install(python, list(missing) or requirements)
        marker.write_text(json.dumps(missing))
    installed = {name: pin for name, _, pin in (line.partition("==") for line in requirements if line not in missing)}
    return Environment(python, version, installed, missing)


def read_pins(text: str) -> list[str]:
    """The requirements of a file of pins.

    Raises:
        ValueError: a line is not `name==version`.
    """
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    for line in filter(None, lines):
        if line.count("==") != 1:
            raise ValueError(f"every requirement must be pinned as name==version, not {line!r}")
    return list(filter(None, lines))


def _install(python: Path, requirements: list[str]) -> dict[str, str]:
    """Install all at once, or, when that fails, each by itself. What failed, and why."""
    options = "pip", "install", "--quiet", "--no-deps", "--python", str(python)
    if _uv(*options, *requirements, check=False).returncode == 0:
        return {}
    missing: dict[str, str] = {}
    for requirement in requirements:
        done = _uv(*options, requirement, check=False)
        if done.returncode:
            missing[requirement] = (done.stderr.strip().splitlines() or ["no reason given"])[-1].strip()
    return missing


def _uv(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("uv is needed to build the environments: pip install uv")
    done = subprocess.run([uv, *arguments], capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False)
    if check and done.returncode:
        raise SystemExit(f"uv {arguments[0]} failed: {done.stderr.strip()}")
    return done


def _version(interpreter: str) -> str:
    """The version of an interpreter, given as a path or, as uv takes it, as `3.13`."""
    found = interpreter if shutil.which(interpreter) else _uv("python", "find", interpreter).stdout.strip()
    program = "import platform; print(platform.python_version())"
    return subprocess.run([found, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
