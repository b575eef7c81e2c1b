"""The contract of a driver: how a fabric is reached. One body of tests runs over every driver.

A driver owns only what it made. Each is a package under `chaos/drivers/` and is registered in the
entry-point group `railbreak.drivers` as a class whose constructor takes no machine into its hands.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from chaos.change import Change, Hits, Place, Where
from chaos.errors import CapabilityError, SpecError, near
from chaos.fabric import Crossing, Fabric, Link, Port, Stream
from chaos.load import Reading
from chaos.path import Counters
from chaos.proof import Action, Proof
from chaos.registry import InForce, Program
from chaos.snapshot import Snapshot
from chaos.units import Duration


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


class Holder(Protocol):
    """Changes made ready, wherever they act (`chaos.hands.Hands` is the one on this machine)."""

    @property
    def actions(self) -> tuple[Action, ...]:
        """What was done so far."""
        ...

    async def start(self, t0_ns: int, spans: Sequence[InForce]) -> None:
        """Hand over the schedule, relative to `t0_ns` on this machine's clock."""
        ...

    async def hits(self) -> Mapping[int, Hits]:
        """How often each change acted so far, by index."""
        ...

    async def wait(self) -> None:
        """Return when the last span has ended; raises what went wrong before."""
        ...

    async def heal(self) -> Proof:
        """Take back what is still in force, see that it is gone, and prove it; repeatable."""
        ...

    async def close(self) -> None:
        """Heal if that is not done, and end."""
        ...


class Paths(Protocol):
    """Which links traffic crosses, and what their ports counted."""

    async def crossings(self, stream: Stream) -> tuple[Crossing, ...]:
        """Links that a stream's packets cross, in order.

        Raises:
            FabricError: a node has no route for them, or they run in a circle.
        """
        ...

    async def counters(self, links: Iterable[Link]) -> Mapping[Port, Counters]:
        """Packet and byte counters of both ends of links."""
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


class Driver(Protocol):
    """Reaches one running fabric.

    `processes` holds what faults can aim at beside ports, by `node/process`; observers fill it.

    `elsewhere` says that programs run on other machines, so that what this one lacks for them does
    not matter.

    `fidelity` labels every figure measured through it (`namespace`, `soft-RoCE VM`, `container`,
    `hardware`); figures of different labels are never compared.
    """

    name: ClassVar[str]
    fidelity: ClassVar[str]
    elsewhere: ClassVar[bool]
    fabric: Fabric
    instance: str
    processes: dict[str, Where]
    warnings: list[str]

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
        """Remove everything this driver made, and nothing else; repeatable.

        What was only attached to is let go of: nothing of it changes.
        """
        ...

    async def exec(
        self, node: str, argv: Sequence[str], *, stdin: bytes = b"", deadline_s: float = 60.0
    ) -> Done:
        """Run a command in a node, never through a shell."""
        ...

    async def spawn(self, program: Program) -> Process:
        """Start a probe's process, in its node if it names one; its stderr goes to `logs`."""
        ...

    def bars(self, program: Program) -> str:
        """Why a probe's program cannot be run, and what instead; empty when it can."""
        ...

    def resolve(self, place: Place) -> Where:
        """Where a place is now.

        Raises:
            CapabilityError: this driver cannot reach that place; says why and what instead.
        """
        ...

    async def arm(
        self, changes: Sequence[Change], *, journal: Path, max_life: Duration, log_dir: Path
    ) -> Holder:
        """Make changes ready where they act; nothing is changed yet.

        Args:
            changes: What, in order.
            journal: Write-ahead journal; lines are appended.
            max_life: The changes are taken back this long after the start of their schedule, come
                what may.
            log_dir: Folder for logs.

        Raises:
            CapabilityError: this driver cannot make one of them; says why and what instead.
            BlockedError: a change is in force already, or what undoes it cannot be written down.
        """
        ...

    def announced(self, node: str, pid: int, started: int) -> Where:
        """The way to a process that a program on `node` announced."""
        ...

    def paths(self) -> Paths:
        """Look-ups of paths and counters of ports; close it after use."""
        ...

    async def snapshot(self) -> Snapshot:
        """The state that faults may touch, per node."""
        ...

    def load(self) -> Reading:
        """How busy the machine that measures is."""
        ...

    @classmethod
    def refusal(cls, change: Change, fabric: Fabric) -> str:
        """Why a change cannot be made through this driver, and what instead; empty when it can."""
        ...

    @classmethod
    def engines(cls) -> Mapping[str, str] | None:
        """Engines of packet rules by name → why one is not there, with its cure; empty: it is.

        None where that is asked of each machine when a rule is armed there.
        """
        ...

    def addresses(self) -> Mapping[str, str]:
        """The address that carries traffic, per host, without prefix length."""
        ...

    @property
    def folder(self) -> Path:
        """Where this instance keeps its state, logs and journal."""
        ...


class Making(Driver, Protocol):
    """The class of a driver: what it can do before there is a fabric."""

    @staticmethod
    def probe() -> tuple[Capability, ...]:
        """What this machine can do through it, each with reason and cure; tried, not guessed."""
        ...

    @staticmethod
    def reap() -> tuple[str, ...]:
        """Remove what dead owners left, where that can be done at once; names of the instances."""
        ...

    @classmethod
    async def up(
        cls,
        fabric: Fabric,
        *,
        instance: str | None = None,
        progress: Callable[[str], None] | None = None,
        linger: bool = False,
    ) -> Self:
        """Make a fabric; interrupted or failed, it leaves nothing.

        Raises:
            CapabilityError: it cannot be made through this driver, or not here; says what to do.
        """
        ...

    @classmethod
    async def attach(cls, instance: str) -> Self:
        """Reach an instance that is known on this machine."""
        ...

    @classmethod
    async def adopt(
        cls,
        target: str,
        *,
        instance: str | None = None,
        links: Sequence[str] = (),
        progress: Callable[[str], None] | None = None,
    ) -> Self:
        """Make something that is not ours known as an instance; changes nothing of it.

        Args:
            target: A lab's name or topology file, or an inventory.
            instance: Name for it; by default its own.
            links: Files that say how it is cabled, where the target does not.
            progress: Told the name of each step.

        Raises:
            CapabilityError: this driver has nothing to attach to.
            FabricError: it is not running, or not reachable.
        """
        ...


def unsupported(driver: str, what: str, instead: str) -> CapabilityError:
    """The one sentence for what a driver cannot do."""
    return CapabilityError(f"driver {driver} cannot {what}; {instead}")


def process_at(place: Place, processes: Mapping[str, Where]) -> Where:
    """The way to a process, among those that were announced, by `node/process`.

    Raises:
        SpecError: none of its name was; says which were.
    """
    for key in (str(place), place.process):
        if key in processes:
            return processes[key]
    raise SpecError(f"no process {place.process!r} on {place.node}; " + near(str(place), processes))
