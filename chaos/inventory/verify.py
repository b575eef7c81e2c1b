"""Declared cabling against what LLDP hears: what is missing, swapped, moved, or not declared."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from chaos.fabric import Port
from chaos.inventory.evidence import Evidence, Seen, gather
from chaos.inventory.lldp import Neighbour
from chaos.inventory.model import Cable, Host, Inventory
from chaos.inventory.outcome import Comparison, Difference

#: Interfaces of the management network, as platforms call them; not compared unless declared.
MANAGEMENT = frozenset(
    ("eth0", "mgmt", "mgmt0", "ma0", "ma1", "Management0", "Management1", "em0", "fxp0", "me0")
)


def compare(
    inventory: Inventory,
    heard: Mapping[str, Iterable[Neighbour]],
    silent: Mapping[str, str] | None = None,
    ignore: Iterable[str] = MANAGEMENT,
) -> Comparison:
    """Compare the cables of an inventory with what its hosts hear.

    Args:
        inventory: Hosts and declared cables.
        heard: Per host, what it hears.
        silent: Hosts that could not be asked, with the reason.
        ignore: Interface names that are not compared unless a cable is declared there.
    """
    evidence = gather(inventory.hosts, heard, inventory.cables, silent)
    return _Verifier(inventory.hosts, inventory.cables, evidence, frozenset(ignore)).run()


def verify(
    declared: Iterable[Cable],
    heard: Mapping[str, Iterable[Neighbour]],
    hosts: Mapping[str, Host] | None = None,
) -> list[Difference]:
    """The differences alone, what counts first.

    Args:
        declared: Declared cables.
        heard: Per host, what it hears.
        hosts: The hosts; by default those at the ends of the cables, under plain names.
    """
    cables = tuple(declared)
    names = dict.fromkeys((*(end.node for one in cables for end in one.ends), *heard))
    known = hosts or {name: Host(name, name) for name in names}
    return list(compare(Inventory("", known, cables), heard).differences)


@dataclass(slots=True)
class _Verifier:
    hosts: Mapping[str, Host]
    cables: tuple[Cable, ...]
    evidence: Evidence
    ignore: frozenset[str]
    found: list[Difference] = field(default_factory=list)

    def run(self) -> Comparison:
        at = {port: cable for cable in self.cables for port in cable.ends}
        seen = {one.cable.ends: one for one in self.evidence.seen}
        declared = {cable.ends: cable for cable in self.cables}
        confirmed = [ends for ends in declared if ends in seen]
        for ends in confirmed:
            self.agreed(declared[ends], seen[ends])
        lost = [cable for ends, cable in declared.items() if ends not in seen]
        extra = [one for ends, one in seen.items() if ends not in declared]
        extra = [one for one in extra if not self.managed(one.cable, at)]
        lost, extra = self.swaps(lost, extra)
        lost, vague = self.unnamed(lost, at)
        lost = self.unknown(lost, at)
        lost = self.moved(lost, extra, at)
        unverified = self.missing(lost)
        self.found.sort(key=lambda one: not one.counts)
        return Comparison(
            tuple(self.found),
            len(declared),
            len(confirmed) + vague,
            unverified,
            tuple(sorted(self.evidence.asked)),
        )

    def managed(self, cable: Cable, at: Mapping[Port, Cable]) -> bool:
        told = any(port in at for port in cable.ends)
        return not told and any(port.name in self.ignore for port in cable.ends)

    def say(
        self,
        kind: str,
        where: Iterable[Port],
        sentence: str,
        *,
        declared: Iterable[Cable] = (),
        found: str = "",
        counts: bool = True,
        words: Iterable[Neighbour] = (),
    ) -> None:
        cables = tuple(declared)
        sources = [str(source) for cable in cables for source in cable.sources]
        sources += [str(one.source) for one in words if one.source.file]
        self.found.append(
            Difference(
                kind,
                tuple(where),
                f"{kind}: {sentence}",
                ", ".join(map(str, cables)),
                found,
                counts,
                tuple(dict.fromkeys(sources)),
            )
        )

    def agreed(self, cable: Cable, seen: Seen) -> None:
        speed = seen.cable.speed_mbps
        if cable.speed_mbps and speed and speed != cable.speed_mbps:
            self.say(
                "wrong-speed",
                cable.ends,
                f"{cable} is declared with {cable.speed_mbps} Mbit/s, but runs at {speed} Mbit/s",
                declared=[cable],
                found=f"{speed} Mbit/s",
                words=seen.words,
            )
        if len(seen.by) == 1:
            other = cable.other(seen.by[0])
            self.say(
                "one-sided",
                cable.ends,
                f"only {seen.by[0]} hears {cable}; {self.silence(other)}",
                declared=[cable],
                found=f"heard at {seen.by[0]}",
                counts=False,
                words=seen.words,
            )

    def silence(self, port: Port) -> str:
        if port.node in self.evidence.asked:
            return f"{port} hears no neighbour (some NICs keep LLDP to themselves)"
        reason = self.evidence.silent.get(port.node, "")
        return f"{port.node} was not asked" + (f": {reason}" if reason else "")

    def swaps(self, lost: list[Cable], extra: list[Seen]) -> tuple[list[Cable], list[Seen]]:
        """Two declared cables whose ends are exchanged."""
        seen = {one.cable.ends: one for one in extra}
        gone: set[tuple[Port, Port]] = set()
        for one, other in combinations(lost, 2):
            if one.ends in gone or other.ends in gone:
                continue
            for kept, moved in ((other.a, other.b), (other.b, other.a)):
                pairs = [_ends(one.a, kept), _ends(one.b, moved)]
                if all(pair in seen for pair in pairs):
                    self.swap(one, other, [seen[pair] for pair in pairs])
                    gone |= {one.ends, other.ends, *pairs}
                    break
        lost = [cable for cable in lost if cable.ends not in gone]
        return lost, [one for one in extra if one.cable.ends not in gone]

    def swap(self, one: Cable, other: Cable, found: list[Seen]) -> None:
        far = {port: seen.cable.other(port) for seen in found for port in seen.cable.ends}
        plugs = (one.b, far[one.a])
        if plugs[0].node != plugs[1].node and one.a.node == far[one.b].node:
            plugs = (one.a, far[one.b])
        cure = f"exchange the plugs at {plugs[0]} and {plugs[1]}"
        real = " and ".join(str(each.cable) for each in found)
        self.say(
            "swapped",
            (*one.ends, *other.ends),
            f"two cables are exchanged: {one} and {other} are declared, {real} are plugged; {cure}",
            declared=[one, other],
            found=real.replace(" and ", ", "),
            words=[word for each in found for word in each.words],
        )

    def unnamed(self, lost: list[Cable], at: Mapping[Port, Cable]) -> tuple[list[Cable], int]:
        """Neighbours that do not tell their port: enough where the host is the declared one."""
        vague: dict[tuple[Port, Port], Cable] = {}
        for local, host, one in self.evidence.unnamed:
            cable = at.get(local)
            told = f"its port only by the MAC address {one.mac}" if one.mac else "no port"
            if cable is None:
                if local.name not in self.ignore:
                    self.say(
                        "unexpected",
                        [local],
                        f"{local} reaches {host}, which tells {told}; no cable is declared there",
                        found=f"{local}--{host}",
                        words=[one],
                    )
            elif cable in lost and cable.other(local).node == host:
                vague[cable.ends] = cable
                self.say(
                    "unnamed-port",
                    cable.ends,
                    f"{local} reaches {host} as declared, which tells {told}",
                    declared=[cable],
                    found=f"{local}--{host}",
                    counts=False,
                    words=[one],
                )
            elif cable in lost:
                vague.setdefault(cable.ends, cable)
                self.say(
                    "moved",
                    [local],
                    f"{local} is declared to reach {cable.other(local)}, but reaches {host}",
                    declared=[cable],
                    found=f"{local}--{host}",
                    words=[one],
                )
        kept = [cable for cable in lost if cable.ends not in vague]
        moved = {one.declared for one in self.found if one.kind == "moved"}
        return kept, sum(str(cable) not in moved for cable in vague.values())

    def unknown(self, lost: list[Cable], at: Mapping[Port, Cable]) -> list[Cable]:
        told: set[tuple[Port, Port]] = set()
        for local, one in self.evidence.unknown:
            cable = at.get(local)
            if cable is None and local.name in self.ignore:
                continue
            wanted = f"is declared to reach {cable.other(local)}, but hears" if cable else "hears"
            counts = cable is not None and cable in lost
            if cable is not None and not counts:
                wanted = f"reaches {cable.other(local)} as declared, and also hears"
            self.say(
                "unknown-neighbour",
                [local],
                f"{local} {wanted} {one.chassis!r} {one.port}".rstrip()
                + ", which is no host of the inventory",
                declared=[cable] if cable else [],
                found=f"{local}--{one.chassis}:{one.port or one.mac}",
                counts=counts,
                words=[one],
            )
            if counts and cable is not None:
                told.add(cable.ends)
        return [cable for cable in lost if cable.ends not in told]

    def moved(self, lost: list[Cable], extra: list[Seen], at: Mapping[Port, Cable]) -> list[Cable]:
        told: set[tuple[Port, Port]] = set()
        for one in extra:
            wanted = [(port, at[port]) for port in one.cable.ends if port in at]
            if not wanted:
                self.say(
                    "unexpected",
                    one.cable.ends,
                    f"{one.cable} is plugged, but not declared",
                    found=str(one.cable),
                    words=one.words,
                )
                continue
            said = " and ".join(
                f"{port} is declared to reach {c.other(port)}" for port, c in wanted
            )
            cables = list(dict.fromkeys(cable.ends for _, cable in wanted))
            declared = [next(c for _, c in wanted if c.ends == ends) for ends in cables]
            self.say(
                "moved",
                one.cable.ends,
                f"{said}, but {one.cable} is plugged",
                declared=declared,
                found=str(one.cable),
                words=one.words,
            )
            told |= set(cables)
        return [cable for cable in lost if cable.ends not in told]

    def missing(self, lost: list[Cable]) -> int:
        unverified = 0
        for cable in lost:
            asked = [port for port in cable.ends if port.node in self.evidence.asked]
            mute = [port for port in cable.ends if port.node in self.evidence.silent]
            if not asked or mute:  # who does not speak LLDP is not heard either
                unverified += 1
                why = " and ".join(self.silence(port) for port in mute or cable.ends)
                self.say(
                    "unverified",
                    cable.ends,
                    f"{cable} cannot be judged: {why}",
                    declared=[cable],
                    counts=False,
                )
                continue
            heard = " and ".join(str(port) for port in asked)
            rest = "" if len(asked) == 2 else f"; {self.silence(cable.other(asked[0]))}"
            verb = "hears" if len(asked) == 1 else "hear"
            self.say(
                "missing",
                cable.ends,
                f"{cable} is declared, but {heard} {verb} no neighbour{rest}",
                declared=[cable],
                found="nothing",
            )
        return unverified


def _ends(one: Port, other: Port) -> tuple[Port, Port]:
    return (min(one, other), max(one, other))
