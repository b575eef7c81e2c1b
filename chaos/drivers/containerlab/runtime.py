"""The container runtime by its own command line: docker, or podman where that is asked for.

Containers are found by labels, never by cutting names; their processes are asked for anew whenever
one has ended, so a restarted node is never taken for the one before it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.drivers.containerlab.calls import Said, ask, error_of
from chaos.errors import CapabilityError, FabricError, SpecError

KNOWN = ("docker", "podman")
_LAB, _NODE, _FILE, _LONG = "containerlab", "clab-node-name", "clab-topo-file", "clab-node-longname"
_HELPER = "tool-type"
#: Where Containerlab speaks to podman.
SOCKET = Path("/run/podman/podman.sock")
#: How a runtime's program says that it did not reach its daemon: docker 20, docker 29, docker over
#: TCP, podman.
_GONE = (
    "cannot connect to",
    "failed to connect to the docker api",
    "error during connect",
    "while trying to connect to the docker",
    "unable to connect to podman",
)
_NO_IMAGE = ("no such image", "image not known", "failed to find image", "no such object")


@dataclass(frozen=True, slots=True)
class Box:
    """A container of a lab.

    Attributes:
        node: Name of its node in the topology file.
        name: Name of the container.
        id: Its full id.
        lab: Name of its lab.
        pid: Its first process on this machine; 0 while it does not run.
        status: `running`, `paused`, `exited`, `created`, ….
        began: When it was started last, as the runtime says it.
        image: Image it was made of.
        file: Topology file that the lab was deployed from.
        networks: Names of its networks, each with the MAC address of its interface there.
        mode: Its network mode.
        kind: Containerlab's kind.
        labdir: Folder of its generated files.
    """

    node: str
    name: str
    id: str
    lab: str
    pid: int
    status: str
    began: str
    image: str
    file: str
    networks: Mapping[str, str] = field(default_factory=dict)
    mode: str = ""
    kind: str = "linux"
    labdir: str = ""

    @property
    def runs(self) -> bool:
        """Whether it has processes (a paused one does)."""
        return self.pid > 0


def boxes_in(text: str) -> tuple[Box, ...]:
    """Containers of labs in the answer of `inspect`; helpers of Containerlab are left out."""
    found = []
    for item in json.loads(text or "[]"):
        labels = item.get("Config", {}).get("Labels") or {}
        if _NODE not in labels or labels.get(_HELPER):
            continue
        state = item["State"]
        networks = (item.get("NetworkSettings") or {}).get("Networks") or {}
        status = str(state.get("Status") or "")
        found.append(
            Box(
                labels[_NODE],
                str(item["Name"]).lstrip("/"),
                item["Id"],
                labels.get(_LAB, ""),
                int(state.get("Pid") or 0),
                "paused" if state.get("Paused") else status,
                str(state.get("StartedAt") or ""),
                item.get("Config", {}).get("Image", ""),
                labels.get(_FILE, ""),
                {name: str(facts.get("MacAddress") or "") for name, facts in networks.items()},
                str(item.get("HostConfig", {}).get("NetworkMode") or ""),
                labels.get("clab-node-kind", "linux"),
                labels.get("clab-node-lab-dir", ""),
            )
        )
    return tuple(sorted(found, key=lambda box: box.node))


def by_node(lab: str, boxes: Iterable[Box]) -> dict[str, Box]:
    """Containers by node.

    Raises:
        FabricError: a node has two.
    """
    found: dict[str, Box] = {}
    for box in boxes:
        if box.node in found:
            raise FabricError(
                f"lab {lab} has node {box.node} twice: containers {found[box.node].name} and "
                f"{box.name}; remove the one that does not belong to it"
            )
        found[box.node] = box
    return found


@dataclass(frozen=True, slots=True)
class Bridge:
    """A network of the runtime as this machine has it.

    Attributes:
        network: Its name.
        name: Interface of the machine that its containers are plugged into.
        macs: MAC address per container id on it.
    """

    network: str
    name: str
    macs: Mapping[str, str] = field(default_factory=dict)


def bridges_in(text: str) -> tuple[Bridge, ...]:
    """Bridge networks in the answer of `network inspect`."""
    found = []
    for item in json.loads(text or "[]"):
        if (item.get("Driver") or item.get("driver")) != "bridge":
            continue
        network = item.get("Name") or item.get("name") or ""
        options = item.get("Options") or {}
        name = options.get("com.docker.network.bridge.name") or item.get("network_interface")
        name = name or f"br-{str(item.get('Id', ''))[:12]}"
        held = item.get("Containers") or {}
        macs = {key: str(facts.get("MacAddress") or "") for key, facts in held.items()}
        found.append(Bridge(network, name, macs))
    return tuple(found)


def unreachable(program: str, said: str) -> CapabilityError | None:
    """The error for what a runtime's program printed when its daemon does not answer, else None.

    Examples:
        >>> str(unreachable("podman", "Cannot connect to Podman"))
        'the podman daemon does not answer (Cannot connect to Podman); start it'
        >>> unreachable("docker", "Error: No such image: x")
    """
    if not any(word in said.lower() for word in _GONE):
        return None
    return CapabilityError(
        f"the {program} daemon does not answer ({error_of(said)[:300]}); start it"
    )


@dataclass(frozen=True, slots=True)
class Runtime:
    """One container runtime.

    Attributes:
        program: `docker` or `podman`.
    """

    program: str = "docker"

    @classmethod
    def find(cls, environ: Mapping[str, str] = os.environ) -> Runtime:
        """The one that is asked for, else docker, else podman where its socket answers.

        Raises:
            SpecError: another one is asked for.
            CapabilityError: it is not installed, or podman has no socket that answers.
        """
        wanted = environ.get("RAILBREAK_RUNTIME") or environ.get("CLAB_RUNTIME") or ""
        if wanted and wanted not in KNOWN:
            raise SpecError(f"runtime must be {' or '.join(KNOWN)}, got {wanted!r}")
        for name in (wanted,) if wanted else KNOWN:
            if program := shutil.which(name, path=environ.get("PATH")):
                if name == "podman" and (why := _no_socket(program)):
                    raise CapabilityError(f"podman is here, but {why}")
                return cls(name)
        missing = wanted or "docker"
        instead = "install it" if wanted else "install docker, or podman with its socket"
        raise CapabilityError(
            f"{missing} is not installed here, and Containerlab needs it; {instead}"
        )

    def __call__(self, *words: str, deadline_s: float = 60.0) -> Said:
        """Run one of its verbs.

        Raises:
            CapabilityError: its daemon does not answer.
        """
        said = ask((self.program, *words), deadline_s=deadline_s)
        if said.code and (gone := unreachable(self.program, said.err)):
            raise gone
        return said

    def boxes(self, lab: str = "") -> tuple[Box, ...]:
        """Containers of a lab, or of every lab; also those that do not run.

        Raises:
            FabricError: the runtime did not say.
        """
        label = f"label={_LAB}={lab}" if lab else f"label={_LAB}"
        for _ in range(3):  # one may go between the two questions
            ids = self._lines("ps", "-a", "-q", "--no-trunc", "--filter", label)
            if not ids:
                return ()
            said = self("inspect", *ids)
            if not said.code:
                return boxes_in(said.out)
        raise FabricError(f"{self.program} inspect: {said.sentence}")

    def bridges(self, names: Sequence[str]) -> tuple[Bridge, ...]:
        """Bridge networks of these names, as far as they are there."""
        here = set(self._lines("network", "ls", "--format", "{{.Name}}"))
        wanted = [name for name in names if name in here]
        if not wanted:
            return ()
        return bridges_in(self("network", "inspect", *wanted).out)

    def has_image(self, name: str) -> bool:
        """Whether an image is on this machine.

        Raises:
            FabricError: the runtime did not say.
        """
        said = self("image", "inspect", "--format", "{{.Id}}", name)
        if said.code and not any(word in said.err.lower() for word in _NO_IMAGE):
            raise FabricError(f"{self.program} image inspect {name}: {said.sentence}")
        return said.code == 0

    def ours(self, name: str) -> str:
        """The newest image of a repository of ours, such as `railbreak/frr`; empty for none."""
        listed = self._lines("images", "--format", "{{.Repository}}:{{.Tag}}", name)
        tagged = [line for line in listed if not line.endswith(":<none>")]
        latest = [line for line in tagged if line.endswith(":latest")]
        return next(iter(latest or tagged), "")

    def remove(self, boxes: Iterable[Box]) -> None:
        """Remove containers, running or not."""
        ids = [box.id for box in boxes]
        if ids:
            self("rm", "-f", *ids)

    def _lines(self, *words: str) -> list[str]:
        said = self(*words)
        if said.code:
            raise FabricError(f"{self.program} {words[0]}: {said.sentence}")
        return said.out.split()


def _no_socket(program: str) -> str:
    """Why podman cannot be spoken to as Containerlab does; empty when it answers."""
    if not SOCKET.is_socket():
        return (
            f"there is no socket {SOCKET}, which Containerlab needs; systemctl start podman.socket"
        )
    said = ask((program, "--url", f"unix://{SOCKET}", "info"), deadline_s=15.0)
    if said.code:
        return f"nobody answers at {SOCKET} ({said.sentence}); systemctl restart podman.socket"
    return ""


def facts(runtime: Runtime) -> Mapping[str, Any]:
    """What the daemon says of itself: `ServerVersion`, `ApiVersion`."""
    said = runtime("version", "--format", "{{json .Server}}", deadline_s=10.0)
    try:
        found = json.loads(said.out or "{}")
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}
