"""The contract of a driver: how a fabric is reached. One body of tests runs over every driver.

A driver owns only what it made. Each is a package under `chaos/drivers/` and is registered in the
entry-point group `railbreak.drivers` as a class whose constructor takes no machine into its hands.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from chaos.change import Place, Where
from chaos.errors import CapabilityError
from chaos.fabric import Fabric
from chaos.registry import Program


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing a driver can do here, or the reason why not.

    Attributes:
        name: Such as `root`, `netns`, `frr`, `nft`, `netem`, `sched_fifo`.
        here: Whether it is.
        reason: What is missing; empty when it is here.
        cure: What the user can do about it; empty when nothing.
    """

    name: str
    here: bool
    reason: str = ""
    cure: str = ""


@dataclass(frozen=True, slots=True)
class Done:
    """A finished command.

    Attributes:
        code: Exit status.
        stdout: Bytes as they came.
        stderr: Bytes as they came.
        started_ns: CLOCK_MONOTONIC ns before it was started.
        ended_ns: CLOCK_MONOTONIC ns after it ended.
    """

    code: int
    stdout: bytes
    stderr: bytes
    started_ns: int
    ended_ns: int


class Process(Protocol):
    """A running program in a node, speaking JSON lines; killed with its owner."""

    pid: int

    def lines(self) -> AsyncIterator[bytes]:
        """Async iterator over its output lines (bytes)."""
        ...

    async def send(self, line: bytes) -> None:
        """Write one line to its standard input."""
        ...

    async def stop(self, deadline_s: float = 5.0) -> int:
        """Close its input, wait, kill after the deadline; its exit status."""
        ...


@dataclass(frozen=True, slots=True)
class Audit:
    """RIB against FIB and cabling against the file.

    Attributes:
        findings: One sentence per difference; empty means none.
        facts: What was compared, for the record.
    """

    findings: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


class Driver(Protocol):
    """Reaches one running fabric.

    `processes` holds what faults can aim at beside ports, by `node/process`; observers fill it.

    `fidelity` labels every figure measured through it (`namespace`, `soft-RoCE VM`, `container`,
    `hardware`); figures of different labels are never compared.
    """

    name: ClassVar[str]
    fidelity: ClassVar[str]
    fabric: Fabric
    instance: str
    processes: dict[str, Where]

    async def wait_ready(self, deadline_s: float = 30.0) -> None:
        """Return when kernel state says the fabric forwards (routes, ECMP legs, BFD up).

        Raises:
            FabricError: not ready in time; the message names node and what it lacks.
        """
        ...

    async def audit(self) -> Audit:
        """Compare what routing daemons believe with what the kernel forwards by."""
        ...

    async def down(self) -> None:
        """Remove everything this driver made, and nothing else; repeatable."""
        ...

    async def exec(
        self, node: str, argv: Sequence[str], *, stdin: bytes = b"", deadline_s: float = 60.0
    ) -> Done:
        """Run a command in a node, never through a shell."""
        ...

    async def spawn(self, program: Program) -> Process:
        """Start a probe's process, in its node if it names one; its stderr goes to `logs`."""
        ...

    def resolve(self, place: Place) -> Where:
        """Where a place is now.

        Raises:
            CapabilityError: this driver cannot reach that place; says why and what instead.
        """
        ...

    def namespaces(self) -> Mapping[str, str]:
        """Path of the network namespace per node (wires excluded)."""
        ...

    def addresses(self) -> Mapping[str, str]:
        """The address that carries traffic, per host, without prefix length."""
        ...

    @property
    def folder(self) -> Path:
        """Where this instance keeps its state, logs and journal."""
        ...


def unsupported(driver: str, what: str, instead: str) -> CapabilityError:
    """The one sentence for what a driver cannot do."""
    return CapabilityError(f"driver {driver} cannot {what}; {instead}")
