"""What a comparison of declared cables with LLDP ends in. Pure data."""

from __future__ import annotations

from dataclasses import dataclass

from chaos.fabric import Port


@dataclass(frozen=True, slots=True)
class Difference:
    """One way in which the cabling is not as declared.

    Attributes:
        kind: `missing`, `unexpected`, `swapped`, `moved`, `unknown-neighbour`, `wrong-speed`,
            `one-sided`, `unnamed-port`, `unverified`.
        where: The ports it is about.
        sentence: The whole of it.
        declared: What was declared, short.
        found: What was found, short.
        counts: Whether the cabling differs by it; otherwise it is a warning.
        sources: Where the declaration, and what was heard, stand.
    """

    kind: str
    where: tuple[Port, ...]
    sentence: str
    declared: str = ""
    found: str = ""
    counts: bool = True
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The outcome.

    Attributes:
        differences: What counts first; then warnings.
        declared: How many cables are declared.
        confirmed: How many of them were heard where they are declared.
        unverified: How many could not be judged, as an end does not speak LLDP or none was asked.
        asked: Hosts whose output was there.
    """

    differences: tuple[Difference, ...]
    declared: int
    confirmed: int
    unverified: int
    asked: tuple[str, ...] = ()

    @property
    def differs(self) -> bool:
        """Whether anything that counts was found."""
        return any(one.counts for one in self.differences)

    @property
    def complete(self) -> bool:
        """Whether every declared cable could be judged, and there was one."""
        return self.declared > 0 and not self.unverified
