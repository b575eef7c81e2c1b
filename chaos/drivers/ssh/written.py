"""A plan's changes as they are made on machines: where, and in which words; pure.

host1:eth1~wire: no carrier            what the fault asks for
  made as leaf1:eth1: down             what is done for it (`places.moved`)
  do   [leaf1, SONiC] sudo config interface shutdown Ethernet0
"""

from __future__ import annotations

from collections.abc import Sequence

from chaos import nos
from chaos.change import Change
from chaos.drivers.ssh.places import called_there, interface_of, moved, platform_of, ssh_of
from chaos.errors import CapabilityError
from chaos.fabric import Fabric, Port
from chaos.packets.engines import There
from chaos.plan import commands, writes

_IN = " " * 11


@writes("ssh")
def written(changes: Sequence[Change], fabric: Fabric, there: There | None = None) -> list[str]:
    """The lines of a plan for changes that are made together."""
    told: list[str] = []
    done = []
    for change in changes:
        if _ends(change, fabric) == 1:
            told += [f"{_IN}{change.describe()}", f"{_IN}  not made: its cable has no other end"]
        else:
            done.append(change)
    plan = moved(done, fabric)
    for at, real in enumerate(plan.changes):
        asked = [one for one, made in zip(done, plan.index, strict=True) if made == at]
        told += [f"{_IN}{one.describe()}" for one in asked]
        if asked != [real]:
            told.append(f"{_IN}  made as {real.describe()}")
        told += _lines(real, fabric, there)
    return told


def _ends(change: Change, fabric: Fabric) -> int:
    """How many ends the cable has at whose wire's side a change is asked for; else 0."""
    place = change.place
    if place.side != "wire":
        return 0
    return len(fabric.link_at(Port(place.node, place.port)).ports)


def _lines(change: Change, fabric: Fabric, there: There | None) -> list[str]:
    """The commands of one change, without its head line."""
    place = change.place
    named = "" if place.process and not place.node else platform_of(fabric, place.node)
    if not named:
        return commands(change, _ifname(change, fabric), there)[1:]
    table = nos.platform(named)
    try:
        made = table.render(nos.in_its_words(change, called_there(change, fabric)), ())
    except CapabilityError as error:
        return [f"{_IN}  not made: {error}"]
    inside = f"[{place.node}, {table.title}]"
    told = [f"{_IN}  do   {inside} {line}" for line in made.do]
    told += [f"{_IN}  undo {inside} {line}" for line in made.undo]
    return [*told, f"{_IN}  else {inside} {table.deadman}"]


def _ifname(change: Change, fabric: Fabric) -> str:
    """What a host's kernel calls the port of a change, as far as it was asked."""
    place = change.place
    if place.process or not place.port:
        return ""
    kernel = ssh_of(fabric, place.node).get("kernel", {})
    if place.port in kernel:
        return str(kernel[place.port][0])
    return interface_of(fabric, Port(place.node, place.port))
