"""Changes: the closed set of small reversible values that every fault is made of.

A change says *what*, at which `Place`; it never acts. A driver resolves a place to a `Where` (a
namespace on this machine and an interface in it, or a process). Each kind renders as `argv`
(`steps`: for printing, SSH, containers, timers on a target), and `chaos.native` prebuilds the same
change as netlink and libnftables messages. One test body compares the state that both leave.
"""

from __future__ import annotations

import json
import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal, Self

from chaos.errors import SpecError, near
from chaos.fabric import Fabric, Link, Port
from chaos.packets import Rule

Argv = tuple[str, ...]
Side = Literal["node", "wire"]


@dataclass(frozen=True, order=True, slots=True)
class Place:
    """Where a change bites, in words of the fabric.

    Attributes:
        node: Node name.
        port: Interface of that node; empty for a process.
        side: `node` is the interface as the node owns it. `wire` is the hidden end of the cable
            that faces it: setting that down takes the carrier from the node, and what is dropped
            at its ingress is what the node sent.
        process: Name of a process a probe or driver announced, such as `rank2`; empty for a port.
    """

    node: str
    port: str = ""
    side: Side = "node"
    process: str = ""

    @classmethod
    def at(cls, port: Port, side: Side = "node") -> Self:
        """The place of a fabric's port."""
        return cls(port.node, port.name, side)

    def __str__(self) -> str:
        if self.process:
            return f"{self.node}/{self.process}"
        return f"{self.node}:{self.port}" + ("~wire" if self.side == "wire" else "")


@dataclass(frozen=True, slots=True)
class Where:
    """A place resolved by a driver, good on this machine until its inode changes.

    Attributes:
        netns: Path that opens the network namespace; empty for a process, and on another machine
            for its own.
        inode: Inode of that namespace when resolved; a later mismatch means it was replaced.
        ifname: Kernel's interface name in it.
        ifindex: Kernel's interface index in it.
        pid: Process id; 0 for an interface.
        started: Start time of the process in clock ticks (`/proc/PID/stat` field 22), so that a
            reused pid is never signalled.
        host: Name of the machine that the rest is true on; empty for this one.
        enter: Words before a command that make it run inside the node; for changes made by command.
        power: Commands for a node as a whole, by what they do (`stop`, `unstop`, `pause`,
            `unpause`, `look`), as far as the driver has them.
    """

    netns: str = ""
    inode: int = 0
    ifname: str = ""
    ifindex: int = 0
    pid: int = 0
    started: int = 0
    host: str = ""
    enter: Argv = ()
    power: Mapping[str, Argv] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read back what `dataclasses.asdict` made."""
        power = {word: tuple(argv) for word, argv in data.get("power", {}).items()}
        return cls(**{**data, "enter": tuple(data.get("enter", ())), "power": power})


@dataclass(frozen=True, slots=True)
class Steps:
    """A change written out as commands, inside the node's namespace.

    Attributes:
        do: Bring the change into force, in order.
        undo: Take it back; safe twice, safe when `do` never ran or ran half. A command that puts
            back what is there already fails with "File exists", which is as good as success.
        look: Prints the state the change lives in; exits 0 with or without the change.
        mark: Text that `look` prints exactly while the change is in force.
        unless: Where it is given, `mark` is empty: text that `look` prints exactly while the
            change is *not* in force.
        tally: Prints how often it acted; empty where acting cannot be counted.
    """

    do: tuple[Argv, ...]
    undo: tuple[Argv, ...]
    look: Argv
    mark: str = ""
    unless: str = ""
    tally: Argv = ()

    def holds(self, looked: str) -> bool:
        """Whether what a successful `look` printed says that the change is in force.

        Examples:
            >>> Steps((), (), look=("ip", "link"), unless=",UP").holds("2: eth1: <BROADCAST> mtu")
            True
        """
        return self.unless not in looked if self.unless else self.mark in looked


@dataclass(frozen=True, slots=True)
class Hits:
    """How often a change was met and acted.

    Attributes:
        seen: Packets (or times) that the change looked at.
        hit: Packets (or times) that it acted on; None where it cannot be counted.
    """

    seen: int | None
    hit: int | None


@dataclass(frozen=True, slots=True)
class LinkState:
    """Set one interface down; its undo sets it up and puts back what the kernel dropped with it.

    At a node's side this is *admin down*: the kernel drops the routes over the link, permanent
    neighbours and global IPv6 addresses; they are saved before the deed and put back after it.
    At the wire's side it is *carrier loss* at the node, which stays admin-up.
    """

    kind: ClassVar[str] = "link_state"
    place: Place

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place}: " + ("no carrier" if self.place.side == "wire" else "admin down")

    def steps(self, where: Where, put_back: Sequence[Argv] = ()) -> Steps:
        """Commands that do the same.

        Args:
            where: The interface.
            put_back: Commands that restore what the kernel drops (`chaos.saved.Saved.commands`).
        """
        name = where.ifname
        return Steps(
            do=(("ip", "link", "set", "dev", name, "down"),),
            undo=(("ip", "link", "set", "dev", name, "up"), *put_back),
            look=("ip", "-o", "link", "show", "dev", name),
            unless=",UP",
        )


@dataclass(frozen=True, slots=True)
class PacketDrop:
    """Drop what arrives at one interface, by an nftables netdev ingress chain of our own.

    Ingress, never egress: an egress drop tells a local sender that it failed, so it is not silent.

    Attributes:
        place: The interface at whose ingress packets vanish. At the wire's side of a port that is
            what the node sends; nothing in the node changes.
        table: Name of the nftables table; ours alone, and unique per change in force.
        match: nftables expression that selects packets, such as `udp dport 4791`; empty is all.
        millionths: Share of the selected packets that is dropped, in parts per million: up to
            5000 any whole number, above that in steps of 100 (0.01 %).
        seed: Where `millionths` is below a million: seed of the pattern of drops. The n-th
            selected packet since the change came into force is dropped or not by the seed alone.
    """

    kind: ClassVar[str] = "packet_drop"
    place: Place
    table: str
    match: str = ""
    millionths: int = 1_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        _our_table(self.table)
        if not 0 < self.millionths <= 1_000_000:
            raise SpecError(f"drop share must be 1 to 1000000 millionths, got {self.millionths}")
        if self.millionths > FINE_MILLIONTHS and self.millionths % 100:
            raise SpecError(
                f"a drop share above {FINE_MILLIONTHS / 1e4:g} % must be a multiple of 0.01 %, "
                f"got {self.millionths / 1e4:g} %"
            )

    def pattern(self) -> tuple[int, tuple[int, ...]]:
        """The period, and the ordinals within it that are dropped; empty when all are.

        Exactly the asked share of every period is lost, at places the seed picks.
        """
        if self.millionths == 1_000_000:
            return 1, ()
        period = 1_000_000 if self.millionths <= FINE_MILLIONTHS else 10_000
        lost = self.millionths * period // 1_000_000
        return period, tuple(sorted(random.Random(self.seed).sample(range(period), lost)))

    def describe(self) -> str:
        """One line for plans and journals."""
        share = "" if self.millionths == 1_000_000 else f"{self.millionths / 1e4:g} % of "
        return f"{self.place}: drop {share}{self.match or 'everything'} at ingress"

    def ruleset(self, ifname: str) -> str:
        """nftables text: counter `seen` before the choice, counter `hit` before the drop."""
        period, lost = self.pattern()
        chosen = f"numgen inc mod {period} {{ {', '.join(map(str, lost))} }} " if lost else ""
        match = f"{self.match} " if self.match else ""
        return "\n".join(
            (
                f"table netdev {self.table} {{",
                "  counter seen { }",
                "  counter hit { }",
                "  chain ingress {",
                f"    type filter hook ingress device {ifname} priority -500; policy accept;",
                f"    {match}counter name seen",
                f"    {match}{chosen}counter name hit drop",
                "  }",
                "}",
                "",
            )
        )

    def steps(self, where: Where) -> Steps:
        """The same through the `nft` command."""
        return _table_steps(self.table, self.ruleset(where.ifname))


@dataclass(frozen=True, slots=True)
class PacketRule:
    """Act on chosen packets that arrive at one interface, by a table like that of `PacketDrop`.

    Attributes:
        place: The interface at whose ingress the rule acts; see `PacketDrop`.
        table: Name of the nftables table; ours alone, and unique per change in force.
        rule: Which packets, when, then what. Its counters: `seen` = `hit` + `passed`.
    """

    kind: ClassVar[str] = "packet_rule"
    place: Place
    table: str
    rule: Rule

    def __post_init__(self) -> None:
        _our_table(self.table)

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place}: {self.rule} at ingress"

    def ruleset(self, ifname: str) -> str:
        """nftables text."""
        return self.rule.nft(self.table, ifname)

    def steps(self, where: Where) -> Steps:
        """The same through the `nft` command."""
        return _table_steps(self.table, self.ruleset(where.ifname))


def _our_table(table: str) -> None:
    if not table.startswith("railbreak_") or not table.isidentifier():
        raise SpecError(f"table must be an identifier after railbreak_, got {table!r}")


def _table_steps(table: str, ruleset: str) -> Steps:
    return Steps(
        do=(("nft", ruleset),),
        undo=(("nft", f"add table netdev {table}; delete table netdev {table}"),),
        look=("nft", "list", "tables", "netdev"),
        mark=f"table netdev {table}\n",
        tally=("nft", "-j", "list", "counters", "table", "netdev", table),
    )


@dataclass(frozen=True, slots=True)
class ProcessSignal:
    """Stop a process (SIGSTOP, undone by SIGCONT) or kill it (SIGKILL, which nothing undoes)."""

    kind: ClassVar[str] = "process_signal"
    place: Place
    signal: Literal["STOP", "KILL"] = "STOP"

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place}: SIG{self.signal}"

    def steps(self, where: Where) -> Steps:
        """The same through `kill`; `look` prints the state letter of the process."""
        pid = str(where.pid)
        look = ("ps", "-o", "pid=,stat=", "-p", f"{pid},1")  # 1 is always there, so ps exits 0
        if self.signal == "KILL":
            return Steps(do=(("kill", "-KILL", pid),), undo=(), look=look, unless=f" {pid} ")
        return Steps(
            do=(("kill", "-STOP", pid),), undo=(("kill", "-CONT", pid),), look=look, mark=f"{pid} T"
        )


@dataclass(frozen=True, slots=True)
class BgpNeighbour:
    """Shut one BGP session down administratively, by the router's own command line.

    Attributes:
        place: The router; its `port` is empty.
        neighbor: Address, or interface for an unnumbered session, as in the configuration.
    """

    kind: ClassVar[str] = "bgp_neighbour"
    place: Place
    neighbor: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9.:_/-]+", self.neighbor):
            raise SpecError(
                f"neighbor must be an address or an interface, got {self.neighbor!r}",
                field="neighbor",
            )

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place.node}: BGP neighbor {self.neighbor} shut down"

    def steps(self, where: Where) -> Steps:
        """The same through FRR's `vtysh`."""

        def configure(words: str) -> Argv:
            lines = ("configure terminal", "router bgp", words)
            return (*where.enter, "vtysh", *(word for line in lines for word in ("-c", line)))

        shut = f"neighbor {self.neighbor} shutdown"
        return Steps(
            do=(configure(shut),),
            undo=(configure(f"no {shut}"),),
            look=(*where.enter, "vtysh", "-c", "show running-config bgpd"),
            mark=f" {shut}\n",
        )


@dataclass(frozen=True, slots=True)
class NodePower:
    """A whole node stopped or paused by whatever runs it.

    Attributes:
        place: The node; its `port` is empty.
        state: `stop`: its processes end and its links lose their carrier. `pause`: its processes
            stand still, its kernel goes on forwarding.
    """

    kind: ClassVar[str] = "node_power"
    place: Place
    state: Literal["stop", "pause"] = "stop"

    def describe(self) -> str:
        """One line for plans and journals."""
        return f"{self.place.node}: " + ("stopped" if self.state == "stop" else "paused")

    def steps(self, where: Where) -> Steps:
        """The commands of the driver; in a plan without a fabric, words that stand for them."""
        words = {
            word: where.power.get(word, (f"({word})", self.place.node))
            for word in (self.state, f"un{self.state}", "look")
        }
        return Steps(
            do=(words[self.state],),
            undo=(words[f"un{self.state}"],),
            look=words["look"],
            mark="exited" if self.state == "stop" else "paused",
        )


#: Up to this share a drop pattern is a million packets long, above it ten thousand.
FINE_MILLIONTHS = 5_000

Change = LinkState | PacketDrop | PacketRule | ProcessSignal | BgpNeighbour | NodePower
KINDS: dict[str, type[Change]] = {
    kind.kind: kind
    for kind in (LinkState, PacketDrop, PacketRule, ProcessSignal, BgpNeighbour, NodePower)
}


def to_json(change: Change) -> dict[str, Any]:
    """A change as plain data, for journals and pipes.

    Examples:
        >>> change = LinkState(Place("leaf1", "eth1"))
        >>> from_json(to_json(change)) == change
        True
    """
    data = {"kind": change.kind, **asdict(change)}
    if isinstance(change, PacketRule):
        data["rule"] = change.rule.plain()
    return data


def from_json(data: Mapping[str, Any]) -> Change:
    """Read what `to_json` wrote; an unknown kind is refused."""
    values = dict(data)
    kind = KINDS.get(str(values.pop("kind", "")))
    if kind is None:
        raise SpecError(f"no change of kind {data.get('kind')!r}; known: {', '.join(KINDS)}")
    values["place"] = Place(**values["place"])
    if kind is PacketRule:
        values["rule"] = Rule.parse(values["rule"])
    known = {item.name for item in fields(kind)}
    return kind(**{name: value for name, value in values.items() if name in known})


def identity(change: Change) -> str:
    """Two changes with one identity could not be told apart when taking them back."""
    names = {PacketDrop: "table", PacketRule: "table", BgpNeighbour: "neighbor"}
    own = names.get(type(change), "kind")
    return json.dumps([change.kind, asdict(change.place), getattr(change, own)])


def aimed(fabric: Fabric, link: str, end: str) -> tuple[Link, tuple[Port, ...]]:
    """The link and the ends that a fault's fields `link` and `end` mean.

    Args:
        fabric: What exists.
        link: Selector of exactly one link.
        end: `both`, a node name, or a port id (for a link from a node to itself).

    Raises:
        SpecError: an `in-use` selector, or `near` or `far`, was not yet replaced by what it stands
            for; no such link; no such end.
    """
    refuse_in_use("link", link)
    if end in ("near", "far"):
        raise SpecError(
            f"end {end!r} is relative to the measured traffic; it is known only on a running "
            "fabric (name a node to plan without one)",
            field="end",
        )
    found = fabric.link(link)
    if end == "both":
        return found, found.ports
    for port in found.ports:
        if end in (port.node, port.id):
            return found, (port,)
    known = ("both", "near", "far", *found.nodes)
    raise SpecError(f"link {found.id} has no end {end!r}; {near(end, known)}", field="end")


def refuse_in_use(field: str, value: str) -> None:
    """Refuse a selector that only a running fabric can resolve.

    Raises:
        SpecError: `value` is `in-use` or begins with it.
    """
    if value.split()[:1] == ["in-use"]:
        raise SpecError(
            f"{field} {value!r} stands for an element that the measured traffic crosses; it is "
            f"known only on a running fabric (name a {field} to plan without one)",
            field=field,
        )


def table_name(fault: str, place: Place, *values: object) -> str:
    """A table name that no other fault, place or value shares, readable in `nft list tables`.

    Examples:
        >>> table_name("packet_loss", Place("leaf1", "eth1"), "1 %")[:-8]
        'railbreak_packet_loss_leaf1_eth1_'
    """
    told = re.sub(r"[^A-Za-z0-9]+", "_", f"{fault}_{place.node}_{place.port}")[:64]
    return f"railbreak_{told}_{zlib.crc32(repr((fault, place, values)).encode()):08x}"
