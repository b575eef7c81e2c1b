"""Packets that an nftables table of ours drops, rewrites or leads to a worker where they arrive."""

from __future__ import annotations

import json
import random
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from chaos.changes.place import NOTHING_SAVED, Place, Steps, Where
from chaos.changes.queue import QUEUES, Queue, lane_of, minor_of
from chaos.errors import SpecError
from chaos.packets import Rule
from chaos.packets.chance import FINE_MILLIONTHS
from chaos.packets.engines import AUTO, At, There, choose

#: Ends the workers of a table in this network namespace, by shell alone: what takes a change back
#: where all else of ours is dead has nothing more. A worker that ends takes its table with it.
_END = (
    ": end the workers of the table in $1, which goes with them; "
    "of() { for one in $(grep -lsF '\"table\":\"'$1'\"' /proc/[0-9]*/cmdline); do "
    'd=${one%/cmdline}; [ "$(readlink $d/ns/net)" = "$(readlink /proc/self/ns/net)" ] && '
    "echo ${d#/proc/}; done; }; "
    'for how in TERM CONT; do p=$(of $1); [ -z "$p" ] || kill -$how $p; done 2>/dev/null; '
    'n=0; while p=$(of $1); [ -n "$p" ]; do n=$((n+1)); [ $n -lt 50 ] || kill -KILL $p; '
    "[ $n -lt 70 ] || exit 1; sleep 0.1 || sleep 1; done"
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
    own: ClassVar[str] = "table"
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

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through the `nft` command."""
        return _table_steps(self.table, self.ruleset(where.ifname))


@dataclass(frozen=True, slots=True)
class PacketRule:
    """Act on chosen packets that arrive at one interface, by a table like that of `PacketDrop`.

    Attributes:
        place: The interface at whose ingress the rule acts; see `PacketDrop`.
        table: Name of the nftables table; ours alone, and unique per change in force.
        rule: Which packets, when, then what. Its counters: `seen` = `hit` + `passed`.
        engine: What does the action; `auto` until it is known what is there.
    """

    kind: ClassVar[str] = "packet_rule"
    own: ClassVar[str] = "table"
    place: Place
    table: str
    rule: Rule
    engine: str = AUTO

    def __post_init__(self) -> None:
        _our_table(self.table)

    def describe(self) -> str:
        """One line for plans and journals."""
        by = "" if self.engine == AUTO else f", by {self.engine}"
        return f"{self.place}: {self.rule} at {'egress' if self.leaves else 'ingress'}{by}"

    @property
    def leaves(self) -> bool:
        """It meets packets where they leave the node: a queue that holds them is there."""
        return self.place.side == "node" and self.engine in QUEUES

    def settled(self, there: There | None) -> PacketRule:
        """The same by a named engine: that which is asked for, or the first that can.

        Raises:
            CapabilityError: none that can is there; says per engine why, and the cure.
        """
        return replace(self, engine=choose(self.rule.then, there, self.engine).name)

    @property
    def tap(self) -> str:
        """Interface that leads to the worker, where one does the action."""
        return f"rbt{zlib.crc32(self.table.encode()):08x}"

    def _by(self, across: str) -> str:
        """The engine, by what is reached where it is not known yet."""
        if self.engine != AUTO:
            return self.engine
        return choose(self.rule.then, At(bool(across))).name

    def ruleset(self, ifname: str, across: str = "") -> str:
        """nftables text; a worker chooses the number of its queue."""
        engine = self._by(across)
        if engine == "nfqueue":
            return self.rule.nft(self.table, ifname, queue="queue num N bypass")
        tap = self.tap if engine == "worker" else ""
        lane = lane_of(minor_of(self.table)) if engine in QUEUES else ""
        hook = "egress" if across == ifname else "ingress"
        return self.rule.nft(self.table, ifname, across=across, tap=tap, lane=lane, hook=hook)

    def steps(self, where: Where, saved: Mapping[str, Any] = NOTHING_SAVED) -> Steps:
        """The same through `nft`, with a queue through `tc`, or by a worker started and ended."""
        engine = self._by(where.across)
        family = "inet" if engine == "nfqueue" else "netdev"
        made = _table_steps(self.table, self.ruleset(where.ifname, where.across), family)
        if engine == "nftables":
            return made
        if engine in QUEUES:
            queue = Queue.of(self.rule, self.table)
            undo = (*made.undo, queue.undo(where.across))
            return replace(made, do=(*queue.do(where.across), *made.do), undo=undo)
        across = "" if engine == "nfqueue" else where.across
        do = (
            sys.executable,
            "-m",
            "chaos.packet_worker",
            "start",
            self.order(where.ifname, across),
        )
        return replace(made, do=(do,), undo=(("sh", "-c", _END, "railbreak", self.table),))

    def order(self, ifname: str, across: str) -> str:
        """What a worker is started with, as JSON."""
        words = {"table": self.table, "ifname": ifname, "across": across, "tap": self.tap}
        return json.dumps({**words, "rule": self.rule.plain()}, separators=(",", ":"))


def _our_table(table: str) -> None:
    if not table.startswith("railbreak_") or not table.isidentifier():
        raise SpecError(f"table must be an identifier after railbreak_, got {table!r}")


def _table_steps(table: str, ruleset: str, family: str = "netdev") -> Steps:
    return Steps(
        do=(("nft", ruleset),),
        undo=(("nft", f"add table {family} {table}; delete table {family} {table}"),),
        look=("nft", "list", "tables", family),
        mark=f"table {family} {table}\n",
        tally=("nft", "-j", "list", "counters", "table", family, table),
    )
