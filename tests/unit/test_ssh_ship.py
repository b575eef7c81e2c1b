"""What is shipped to machines: the same bytes each time, whole, and good for Python 3.10."""

import ast
import io
import subprocess
import sys
import zipfile

import pytest

from chaos.drivers.ssh import ship

MODULES = ship.closure((*ship.PROGRAMS, *ship.jobs()))
#: Names that Python 3.10 lacks, by where they come from.
NEWER = {
    "typing": {"LiteralString", "Never", "Required", "NotRequired", "reveal_type", "assert_never"},
    "enum": {"StrEnum", "verify", "ReprEnum"},
    "datetime": {"UTC"},
    "asyncio": {"timeout", "timeout_at", "TaskGroup", "Runner", "Barrier"},
    "contextlib": {"chdir"},
    "hashlib": {"file_digest"},
    "itertools": {"batched"},
    "os": {"unshare", "setns", "pidfd_getfd"},
    "math": {"exp2", "cbrt", "sumprod"},
}
#: Programs that run beside the machine's own torch, whose Python may be newer.
LAUNCHERS = {"probes.jobs.collective", "probes.jobs.collective_group"}


def newer(source):
    """What of a source Python 3.10 cannot run; sentences."""
    found = []
    try:
        tree = ast.parse(source, feature_version=(3, 10))
    except SyntaxError as error:
        return [f"line {error.lineno}: {error.msg}"]
    for node in ast.walk(tree):
        if isinstance(node, ast.TryStar):
            found.append(f"line {node.lineno}: except*")
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.attr in NEWER.get(node.value.id, ()):
                found.append(f"line {node.lineno}: {node.value.id}.{node.attr}")
        elif isinstance(node, ast.ImportFrom):
            wrong = {alias.name for alias in node.names} & NEWER.get(node.module or "", set())
            found += [f"line {node.lineno}: {node.module}.{name}" for name in wrong]
        elif isinstance(node, ast.Import):
            found += [f"line {node.lineno}: tomllib" for one in node.names if one.name == "tomllib"]
        elif isinstance(node, ast.Name) and node.id in ("ExceptionGroup", "BaseExceptionGroup"):
            found.append(f"line {node.lineno}: {node.id}")
    return found


@pytest.mark.parametrize("module", sorted(set(MODULES) - LAUNCHERS))
def test_it_runs_on_python_3_10(module):
    assert newer(MODULES[module].read_text()) == []


@pytest.mark.parametrize(
    "source",
    ["import tomllib", "from enum import StrEnum", "try: pass\nexcept* OSError: pass",
     "async def f():\n  async with asyncio.timeout(1): pass", "def f[T](x: T): ..."],
)  # fmt: skip
def test_the_check_above_can_fail(source):
    assert newer(source)


def test_self_is_only_a_word_in_annotations():
    """`typing.Self` is absent in 3.10; the zipapp gives a stand-in that is good for annotations."""
    for module, path in MODULES.items():
        source = path.read_text()
        if "Self" in source:
            assert "from __future__ import annotations" in source, module


def test_nothing_else_is_needed():
    """Standard library alone, but for torch in the ranks of a job."""
    allowed = set(sys.stdlib_module_names) | {"chaos", "probes", "__future__"}
    for module, path in MODULES.items():
        if module.startswith("probes.jobs.collective_"):
            allowed_here = allowed | {"torch", "numpy"}
        else:
            allowed_here = allowed
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            assert {name.split(".")[0] for name in names} <= allowed_here, module


def test_the_same_sources_give_the_same_bytes():
    first = ship.archive()
    ship.archive.cache_clear()

    assert ship.archive() == first
    with zipfile.ZipFile(io.BytesIO(first)) as zipped:
        assert {entry.date_time for entry in zipped.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert zipped.namelist() == sorted(zipped.namelist())


def test_it_runs_without_anything_of_ours_installed(tmp_path):
    path = tmp_path / "railbreak.pyz"
    path.write_bytes(ship.archive())
    clean = ("env", "-i", "PATH=/usr/bin:/bin", sys.executable, "-I", "-S", str(path))

    done = subprocess.run((*clean, "chaos.drivers.ssh.far.now"), capture_output=True, check=True)

    assert done.stdout.isdigit()
    for module in sorted(set(ship.PROGRAMS) | set(ship.jobs())):
        if module.removeprefix("probes.jobs.collective_") in ("worker", "buffers", "store"):
            continue  # need torch
        code = f"import sys; sys.path.insert(0, {str(path)!r}); import {module}"
        clean = ("env", "-i", "PATH=/usr/bin:/bin", sys.executable, "-I", "-S", "-c", code)
        done = subprocess.run(clean, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{module}: {done.stderr}"
