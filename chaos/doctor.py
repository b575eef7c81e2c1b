"""What this machine can do, found out by doing; for what it cannot: why, and the cure."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from importlib.metadata import entry_points

from chaos.driver import Capability

_INSTALL = "apt-get install"


def examine() -> tuple[Capability, ...]:
    """Every capability: of the machine, of each driver, of the job."""
    found = [
        Capability(
            "linux", sys.platform == "linux", "" if sys.platform == "linux" else "not Linux"
        ),
        _tool("ip", "iproute2"),
        _tool("tshark", "tshark", "captures cannot be checked against an independent reader"),
        _torch(),
    ]
    for entry in entry_points(group="railbreak.drivers"):
        found += entry.load().probe()
    names: dict[str, Capability] = {}
    for capability in found:
        names.setdefault(capability.name, capability)
    return tuple(names.values())


def _tool(name: str, package: str, reason: str = "") -> Capability:
    if shutil.which(name):
        return Capability(name, True)
    return Capability(name, False, reason or f"no {name} on PATH", f"{_INSTALL} {package}")


def _torch() -> Capability:
    if importlib.util.find_spec("torch") is not None:
        return Capability("torch", True)
    reason = "the collective probe needs torch; everything else works without it"
    return Capability("torch", False, reason, "pip install 'railbreak[job]'")
