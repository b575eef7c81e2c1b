"""`PacketDrop`, `PacketRule`: an nftables table of ours."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.change import Hits, PacketDrop, PacketRule, Where
from chaos.errors import ApplyError, BlockedError, FabricError
from chaos.nft import Compiler, Tables


@dataclass(slots=True)
class Dropped:
    """`PacketDrop`, `PacketRule`: one transaction adds the table, one message deletes it."""

    change: PacketDrop | PacketRule
    compiler: Compiler
    tables: Tables
    rules: str
    counted: dict[str, int] = field(default_factory=lambda: {"seen": 0, "hit": 0, "passed": 0})
    saved: Mapping[str, Any] = field(default_factory=dict)
    lasting: bool = False

    @classmethod
    def open(
        cls, change: PacketDrop | PacketRule, where: Where, saved: Mapping[str, Any] | None
    ) -> Dropped:
        """Called inside the namespace."""
        compiler, tables = Compiler(), Tables.open()
        try:
            if saved is None and change.table in tables.names():
                raise BlockedError(
                    f"{change.place}: nftables table {change.table} is there already: a leftover "
                    "or another run (railbreak undo takes it back)"
                )
            if isinstance(change, PacketDrop):
                rules = change.ruleset(where.ifname)
            elif where.leaving or not where.across:
                rules = change.ruleset(where.ifname, where.across)
            else:  # by its number: the library's table of names may be that of another namespace
                index = index_of(change, where.across, saved is None)
                rules = change.ruleset(where.ifname, str(index))
        except BaseException:
            compiler.close()
            tables.close()
            raise
        return cls(change, compiler, tables, rules)

    def do(self) -> None:
        """Add the table."""
        try:
            self.compiler.run(self.rules)
        except ApplyError as error:
            raise ApplyError(f"{self.change.describe()}: {error}") from None

    def undo(self) -> tuple[str, ...]:
        """Count, then delete the table; a rule's counters stand still before they are read."""
        try:
            if isinstance(self.change, PacketRule):
                self.tables.detach(self.change.table)
            self.counted = self._total()
            self.tables.delete(self.change.table)
        except (OSError, FabricError) as error:
            return (f"delete table netdev {self.change.table}: {error}",)
        return ()

    def in_force(self) -> bool:
        """Whether the table is there."""
        return self.change.table in self.tables.names()

    def hits(self) -> Hits:
        """Packets that the match met, and those it acted on."""
        total = self._total()
        return Hits(total["seen"], total["hit"])

    @property
    def trouble(self) -> tuple[str, ...]:
        """Packets that cannot be accounted for, in sentences."""
        return unbalanced(self.change, self.counted) if isinstance(self.change, PacketRule) else ()

    def _total(self) -> dict[str, int]:
        now = self.tables.counters(self.change.table)
        return {name: before + now.get(name, 0) for name, before in self.counted.items()}

    def close(self) -> None:
        """Close socket and handle."""
        self.compiler.close()
        self.tables.close()


def index_of(change: PacketRule, ifname: str, needed: bool) -> int:
    """The number of an interface; 0 where it is gone and with it all that was at it.

    Raises:
        FabricError: it is needed.
    """
    try:
        return socket.if_nametoindex(ifname)
    except OSError:
        if needed:
            raise FabricError(f"{change.place}: interface {ifname} is gone") from None
        return 0


def unbalanced(change: PacketRule, counted: Mapping[str, int]) -> tuple[str, ...]:
    """A sentence where some of the packets seen were neither acted on nor let pass.

    Examples:
        >>> from chaos.change import Place
        >>> from chaos.packets import Rule
        >>> one = PacketRule(Place("h1", "eth1"), "railbreak_t", Rule())
        >>> unbalanced(one, {"seen": 3, "hit": 1, "passed": 2})
        ()
        >>> unbalanced(one, {"seen": 3, "hit": 1, "passed": 1})
        ('h1:eth1: drop on all of everything at ingress: 3 packets seen, but 1 hit + 1 passed',)
    """
    seen, hit, passed = (counted[name] for name in ("seen", "hit", "passed"))
    if seen == hit + passed:
        return ()
    return (f"{change.describe()}: {seen} packets seen, but {hit} hit + {passed} passed",)
