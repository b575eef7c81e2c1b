"""No packet of a lab leaves this machine through the management network.

A node's default route is the runtime's bridge, which hides the node behind the machine's address
and sends on whatever has no other way: a probe to a lab address does so as soon as its route is
missing. One table of ours per instance drops, before anything else forwards, what comes from a
lab's bridges and is to go anywhere but back, and counts it. What was on such a bridge before the
lab, of somebody else, keeps its way out.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from chaos.drivers import state
from chaos.errors import ApplyError, CapabilityError, FabricError
from chaos.netns import inside
from chaos.nft import Compiler

_PREFIX = "railbreak_guard_"
_HERE = "/proc/self/ns/net"
_COUNT = re.compile(r"packets (\d+) bytes (\d+)")


@dataclass(frozen=True, slots=True)
class Fence:
    """What is held back.

    Attributes:
        bridges: Per bridge of the lab, MAC addresses of others on it, which are let through.
        spare: While a lab is being deployed: bridges that were there before; every other one may
            be the lab's. None: nothing is being deployed.
    """

    bridges: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    spare: tuple[str, ...] | None = None


def table_of(instance: str) -> str:
    """The table of an instance; no other instance, also of another state folder, has it.

    Examples:
        >>> table_of("my-lab").startswith("railbreak_guard_my_lab_")
        True
    """
    return f"{_PREFIX}{re.sub(r'[^A-Za-z0-9]', '_', instance)}_{_mark(instance)}"


def _mark(instance: str) -> str:
    return f"{zlib.crc32(f'{state.state_root()}/{instance}'.encode()):08x}"


def rules(table: str, fence: Fence, counted: tuple[int, int] = (0, 0)) -> str:
    """nftables text that replaces the table in one step; pure.

    Examples:
        >>> 'iifname "br-a" oifname != "br-a" counter' in rules("t", Fence({"br-a": ()}))
        True
    """
    drops = []
    for bridge, others in sorted(fence.bridges.items()):
        spared = f"ether saddr != {{ {', '.join(sorted(others))} }} " if others else ""
        drops.append(f'iifname "{bridge}" oifname != "{bridge}" {spared}')
    if fence.spare is not None:
        here = ", ".join(f'"{name}"' for name in sorted(fence.spare))
        spared = f"iifname != {{ {here} }} " if here else ""
        drops.append(f'iifname "br-*" oifname != "br-*" {spared}')
    lines = [
        f"add table inet {table}",
        f"delete table inet {table}",
        f"table inet {table} {{",
        f"  counter dropped {{ packets {counted[0]} bytes {counted[1]} }}",
        "  chain forward {",
        "    type filter hook forward priority -350; policy accept;",
        *(f"    {drop}counter name dropped drop" for drop in drops),
        "  }",
        "}",
        "",
    ]
    return "\n".join(lines)


def put_up(instance: str, fence: Fence) -> None:
    """Hold back from now on; what was counted so far stays counted.

    Raises:
        CapabilityError: there is no nftables here.
        FabricError: it was refused.
    """
    table = table_of(instance)
    counted = _counted(table) or (0, 0)
    try:
        _run(rules(table, fence, counted))
    except ApplyError as error:
        raise FabricError(f"the guard of {instance} was refused: {error}") from None


def dropped(instance: str) -> int | None:
    """Packets held back so far; None where there is no guard."""
    counted = _counted(table_of(instance))
    return None if counted is None else counted[0]


def take_down(instance: str) -> None:
    """Let everything through again; nothing where there is none."""
    _remove(table_of(instance))


def _counted(table: str) -> tuple[int, int] | None:
    try:
        found = _COUNT.search(_run(f"list counters table inet {table}", counts=True))
    except ApplyError:
        return None
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _remove(table: str) -> None:
    _run(f"add table inet {table}; delete table inet {table}")


def _run(text: str, *, counts: bool = False) -> str:
    def body() -> str:
        compiler = Compiler(counts=counts)
        try:
            return compiler.run(text)
        finally:
            compiler.close()

    return inside(_HERE, body)


def possible() -> str:
    """Why no guard can be set here; empty when it can."""
    try:
        _run("list tables inet")
    except (ApplyError, CapabilityError, OSError) as error:
        return str(error)
    return ""
