"""What is needed to repeat a run, and to know whether two runs may be compared.

Figures whose fidelity differs are never compared; the rest of this block tells a reader why two
figures of one fidelity may still differ.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent


def block(fidelity: str, command: Sequence[str]) -> dict[str, Any]:
    """Commit, command, kernel, versions, host; the first things a report shows."""
    cores = os.cpu_count() or 1
    return {
        "commit": commit(),
        "command": list(command),
        "fidelity": fidelity,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        "host": {"cores": cores, "memory_gib": _memory_gib(), "load1": os.getloadavg()[0]},
        "versions": versions(),
    }


@cache
def commit() -> dict[str, Any]:
    """Git commit of this checkout and whether it was dirty; the version where it is installed."""
    asked = ("git", "-C", str(_ROOT))
    if not (_ROOT / ".git").exists() or shutil.which("git") is None:
        return {"id": None, "dirty": None, "version": _version("railbreak")}
    head = subprocess.run((*asked, "rev-parse", "HEAD"), capture_output=True, text=True)
    dirty = subprocess.run((*asked, "status", "--porcelain"), capture_output=True, text=True)
    return {
        "id": head.stdout.strip() or None,
        "dirty": bool(dirty.stdout.strip()),
        "version": _version("railbreak"),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def versions() -> dict[str, str | None]:
    """Versions of what takes part: Python, torch, FRR, nft, iproute2; None where it is absent."""
    return {
        "python": platform.python_version(),
        "torch": _version("torch"),
        "frr": _said(("/usr/lib/frr/zebra", "--version")),
        "nft": _said(("nft", "--version")),
        "iproute2": _said(("ip", "-V")),
    }


def _said(argv: Sequence[str]) -> str | None:
    if shutil.which(argv[0]) is None:
        return None
    done = subprocess.run(argv, capture_output=True, text=True)
    return done.stdout.strip().split("\n", 1)[0] or None


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
