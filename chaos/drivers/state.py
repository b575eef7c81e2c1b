"""Where fabrics keep their state, who owns one, and which are left over.

A fabric's folder appears in one step with its state inside (a rename), so no reader ever sees half
of one and two copies of a lab never take the same name.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import select
import shutil
import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos.errors import FabricError, SpecError, near
from chaos.fabric import Fabric, Link, Node, Port

_SAFE = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
_CLAIM = ".claim-"


def state_root() -> Path:
    """Folder of all instances: `$RAILBREAK_STATE`, else `/run/railbreak`."""
    return Path(os.environ.get("RAILBREAK_STATE") or "/run/railbreak")


@dataclass(frozen=True, slots=True)
class Life:
    """A process that cannot be mistaken for a later one with the same pid.

    Attributes:
        pid: Process id; 0 for none.
        started: Its start time in clock ticks since boot.
    """

    pid: int = 0
    started: int = 0

    @classmethod
    def of(cls, pid: int) -> Life:
        """The process `pid` as it is now."""
        return cls(pid, start_ticks(pid))

    @property
    def alive(self) -> bool:
        """Whether that very process still runs (a zombie does not)."""
        return self.pid > 0 and self.started > 0 and start_ticks(self.pid) == self.started


def start_ticks(pid: int) -> int:
    """Start time of a running process in clock ticks; 0 when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in (b"Z", b"X") else int(fields[19])


@dataclass(frozen=True, slots=True)
class State:
    """What must be known to reach, or to remove, a running fabric.

    Attributes:
        instance: Name of this copy.
        fabric: The fabric.
        owner: Process that brought it up.
        keeper: Process that all its namespaces and daemons live and die with.
        linger: It outlives its owner.
        began: Wall clock, seconds since 1970.
        token: Text that occurs in this state only.
        ready: It was completely built.
        spaces: File descriptors in the keeper, per node and kind of namespace.
        wire: The same for the hidden namespace; key `net`.
        driver: Name of the driver that reaches it.
        owned: We made what it reaches, so taking it down removes that; else it is let go of only.
        details: What the driver needs to find it again; plain data.
    """

    instance: str
    fabric: Fabric
    owner: Life
    keeper: Life = field(default_factory=Life)
    linger: bool = False
    began: float = 0.0
    token: str = ""
    ready: bool = False
    spaces: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    wire: Mapping[str, int] = field(default_factory=dict)
    driver: str = "netns"
    owned: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Replace the state file in one step."""
        text = json.dumps(asdict(self) | {"version": 1}, indent=1, default=str)
        part = folder / "state.json.part"
        part.write_text(text, encoding="utf-8")
        part.replace(folder / "state.json")


@dataclass(frozen=True, slots=True)
class Running:
    """One instance on this machine.

    Attributes:
        instance: Its name.
        fabric: Name of its fabric.
        owner: Process id of who brought it up.
        keeper: Process id of what its namespaces live and die with.
        age_s: Seconds since it was begun.
        alive: Its namespaces exist.
        linger: It outlives its owner.
        stale: Nobody owns it any more, or its namespaces are gone: `reap` removes it.
        folder: Its state.
        driver: Name of the driver that reaches it.
        owned: We made it; else it is somebody else's, and only attached to.
    """

    instance: str
    fabric: str
    owner: int
    keeper: int
    age_s: float
    alive: bool
    linger: bool
    stale: bool
    folder: Path
    driver: str = "netns"
    owned: bool = True


def claim(
    fabric: Fabric,
    instance: str | None,
    keeper: Life | None = None,
    token: str = "",
    driver: str = "netns",
) -> tuple[Path, State]:
    """Take a name for a new instance: the lab's, else with -2, -3, …; atomic.

    Args:
        fabric: What will be built.
        instance: The name wanted; None for the next free one.
        keeper: Process that will keep its namespaces.
        token: By which the keeper finds the folder again, whatever it came to be called.
        driver: Name of the driver that claims it.

    Raises:
        SpecError: `instance` is no usable name.
        FabricError: `instance` is taken.
    """
    wanted = instance if instance is not None else fabric.name
    if not _SAFE.match(wanted):
        raise SpecError(
            f"instance name {wanted!r}: letters, digits, '_', '.', '-', at most 64, "
            "beginning with a letter or digit"
        )
    root = state_root()
    root.mkdir(parents=True, exist_ok=True)
    owner = Life.of(os.getpid())
    token = token or secrets.token_hex(8)
    part = root / f"{_CLAIM}{owner.pid}-{token}"
    part.mkdir()
    try:
        for count in range(1, 1000):
            name = wanted if count == 1 else f"{wanted}-{count}"
            state = State(
                name,
                fabric,
                owner,
                keeper or Life(),
                began=time.time(),
                token=token,
                driver=driver,
            )
            state.save(part)
            try:
                part.rename(root / name)
            except OSError:
                if instance is None:
                    continue
                raise FabricError(
                    f"instance {name} is up already; take it down, or choose another name"
                ) from None
            return root / name, state
    finally:
        shutil.rmtree(part, ignore_errors=True)
    raise FabricError(f"a thousand copies of {wanted} are up; take some down: railbreak down --all")


def load_state(instance: str) -> tuple[Path, State]:
    """Read the state of a running instance.

    Raises:
        FabricError: there is none of that name; near names are offered.
    """
    folder = state_root() / instance
    state = read_state(folder)
    if state is None:
        names = [item.instance for item in running()]
        raise FabricError(f"no fabric {instance!r} is up; {near(instance, names)}")
    return folder, state


def read_state(folder: Path) -> State | None:
    """The state in a folder; None where there is none or it cannot be read."""
    try:
        data = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        data.pop("version", None)
        data["fabric"] = fabric_from_json(data["fabric"])
        data["owner"], data["keeper"] = Life(**data["owner"]), Life(**data["keeper"])
        return State(**data)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def fabric_from_json(data: Mapping[str, Any]) -> Fabric:
    """Read a fabric back from plain data (`dataclasses.asdict`)."""
    nodes = {}
    for name, node in data["nodes"].items():
        addresses = {port: tuple(found) for port, found in node["addresses"].items()}
        nodes[name] = Node(**{**node, "addresses": addresses})
    links = tuple(
        Link(
            **{
                **link,
                "a": Port(**link["a"]),
                "b": Port(**link["b"]),
                "macs": tuple(link["macs"]),
            }
        )
        for link in data["links"]
    )
    return Fabric(data["name"], nodes, links, data["source"], data["prefix"])


def running() -> tuple[Running, ...]:
    """Every instance on this machine, by name, whatever its driver; reads only.

    An embedded one is alive while its namespaces exist; one that is reached otherwise, once it was
    completely made.
    """
    found = []
    for folder in _folders():
        state = read_state(folder)
        if state is None:
            continue
        alive = state.keeper.alive if state.keeper.pid else state.ready
        dead = state.keeper.pid != 0 and not alive
        stale = dead or not (state.owner.alive or state.linger)
        age = max(0.0, time.time() - state.began)
        found.append(
            Running(
                state.instance,
                state.fabric.name,
                state.owner.pid,
                state.keeper.pid,
                age,
                alive,
                state.linger,
                stale,
                folder,
                state.driver,
                state.owned,
            )
        )
    return tuple(found)


def _folders() -> list[Path]:
    try:
        return sorted(
            item for item in state_root().iterdir() if item.is_dir() and item.name[0] != "."
        )
    except OSError:
        return []


def reap() -> tuple[str, ...]:
    """Remove instances whose owner died and that were not meant to outlive it; their names.

    Only embedded ones: what another driver made is taken down by that driver.
    """
    gone = [item for item in running() if item.stale and item.driver == "netns"]
    for item in gone:
        state = read_state(item.folder)
        remove(item.folder, state.keeper if state else Life())
    with contextlib.suppress(OSError):
        for part in state_root().glob(f"{_CLAIM}*"):
            pid = part.name.removeprefix(_CLAIM).partition("-")[0]
            if not pid.isdecimal() or not start_ticks(int(pid)):
                shutil.rmtree(part, ignore_errors=True)
    return tuple(item.instance for item in gone)


def remove(folder: Path | None, keeper: Life, deadline_s: float = 60.0) -> None:
    """Kill the keeper, and with it all namespaces and processes of the fabric; then the folder.

    Raises:
        FabricError: the kernel did not end it in time; the message says what is left.
    """
    if keeper.alive:
        _end(keeper, deadline_s)
    if folder is None:
        return
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # a daemon's last write may have come between
        shutil.rmtree(folder, ignore_errors=True)


def _end(keeper: Life, deadline_s: float) -> None:
    try:
        pidfd = os.pidfd_open(keeper.pid)
    except ProcessLookupError:
        return
    try:
        if not keeper.alive:
            return
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        if not poller.poll(deadline_s * 1000):
            raise FabricError(
                f"process {keeper.pid}, which keeps the namespaces, did not end within "
                f"{deadline_s:g} s of SIGKILL; look at it: cat /proc/{keeper.pid}/stack"
            )
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)
