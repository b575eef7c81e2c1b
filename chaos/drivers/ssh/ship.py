"""Our own packages as one zipapp, so that a machine needs nothing of ours installed.

The same sources give the same bytes: entries are sorted and carry no time. What is shipped is what
the shipped programs import, found by reading their import statements.
"""

from __future__ import annotations

import ast
import hashlib
import io
import zipfile
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import chaos

ROOT = Path(chaos.__file__).resolve().parents[1]
#: Programs that a machine is asked to run; the probes' programs besides.
PROGRAMS = (
    "chaos.injector",
    "chaos.packet_worker",
    "chaos.drivers.ssh.far.steward",
    "chaos.drivers.ssh.far.takeback",
    "chaos.drivers.ssh.far.now",
)
_OURS = ("chaos", "probes")
#: Packages whose `__init__` speaks of the controller's side; shipped empty.
_EMPTY = ("chaos.drivers", "chaos.drivers.ssh", "probes")
_MAIN = '''\
"""python3 FILE.pyz [--keep FOLDER] MODULE [WORD…]: run one of the programs in here."""

import os
import runpy
import sys
import typing

if not hasattr(typing, "Self"):  # Python 3.10
    typing.Self = typing.Any

del sys.argv[0]
if sys.argv[0] == "--keep":
    _, folder, *sys.argv = sys.argv
    try:
        os.setsid()
    except PermissionError:  # it leads its process group already
        pass
    with open("/proc/self/stat", "rb") as stat:
        started = int(stat.read().rpartition(b")")[2].split()[19])
    with open(os.path.join(folder, "pid-%d" % os.getpid()), "w") as kept:
        kept.write("%d" % started)
    os.write(1, b"born %d %d\\n" % (os.getpid(), started))
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
'''


def jobs() -> tuple[str, ...]:
    """Every program of our probes."""
    folder = ROOT / "probes" / "jobs"
    return tuple(f"probes.jobs.{path.stem}" for path in sorted(folder.glob("[a-z]*.py")))


def closure(modules: Iterable[str]) -> dict[str, Path]:
    """Every module of ours that some modules need, themselves included, with its file."""
    found: dict[str, Path] = {}
    left = list(modules)
    while left:
        module = left.pop()
        path = _file(module)
        if module in found or path is None:
            continue
        found[module] = path
        parent = module.rpartition(".")[0]
        left += [parent] if parent else []
        if module not in _EMPTY:
            left += _imports(path)
    return found


def _file(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    if (path / "__init__.py").is_file():
        return path / "__init__.py"
    return path.with_suffix(".py") if path.with_suffix(".py").is_file() else None


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.split(".")[0] in _OURS:
                yield node.module
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] in _OURS)


@cache
def archive() -> bytes:
    """The zipapp: `python3 FILE.pyz MODULE` runs one of the programs."""
    files = {"__main__.py": _MAIN.encode()}
    for module, path in closure((*PROGRAMS, *jobs())).items():
        name = str(path.relative_to(ROOT))
        files[name] = b"" if module in _EMPTY else path.read_bytes()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            zipped.writestr(entry, files[name])
    return made.getvalue()


@cache
def digest() -> str:
    """SHA-256 of the zipapp."""
    return hashlib.sha256(archive()).hexdigest()
