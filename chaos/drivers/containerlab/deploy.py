"""Deploying a lab of ours, looking whether it is what the file says, and removing it again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from chaos.drivers.containerlab import cabling, guard
from chaos.drivers.containerlab.binary import Binary, Failed, failed_execs
from chaos.drivers.containerlab.calls import ask
from chaos.drivers.containerlab.guard import Fence
from chaos.drivers.containerlab.nodes import Nodes
from chaos.drivers.containerlab.privileges import privileged_refused
from chaos.drivers.containerlab.render import Wanted, copy_name, render
from chaos.drivers.containerlab.runtime import Box, Runtime
from chaos.drivers.local import seed_of
from chaos.drivers.state import State
from chaos.errors import FabricError, SpecError
from chaos.fabric import Fabric
from chaos.netns import inside, umount
from chaos.topology.fabric import runs_as
from chaos.topology.lab import WITHOUT_CONTAINER, Lab

_THERE_ALREADY = ("File exists", "already assigned")
_SEED = "net/ipv4/fib_multipath_hash_seed"
#: A daemon goes on with what a killed deploy had asked of it.
_LATE_S = 1.5
_NO_NETWORK = ("", "none", "host")


def containers_of(fabric: Fabric) -> tuple[str, ...]:
    """Nodes that are containers of their own."""
    return tuple(n.name for n in fabric.nodes.values() if n.kind not in WITHOUT_CONTAINER)


class Deployment:
    """One lab of ours on its way up.

    Args:
        lab: The resolved topology file.
        folder: Folder of the instance.
        known: Its state so far.
        runtime: The container runtime.
        binary: The `containerlab` that is here.
        progress: Told the name of each step.
    """

    def __init__(
        self,
        lab: Lab,
        folder: Path,
        known: State,
        runtime: Runtime,
        binary: Binary,
        progress: Callable[[str], None],
    ) -> None:
        self.lab, self.folder, self.state = lab, folder, known
        self.runtime, self.binary, self.progress = runtime, binary, progress
        self.warnings: list[str] = []
        self.file = folder / "lab" / copy_name(lab)

    async def run(self) -> None:
        """Guard, deploy, look.

        Raises:
            FabricError: a lab of that name runs, or this one did not come up as the file says.
        """
        name = self.state.instance
        refuse_running(name, self.runtime.boxes(name))
        self._write(name)
        network = str(self.lab.mgmt.get("network") or "clab")
        bridges = self.runtime.bridges(self._networks(network))
        self._keep(
            lab=name,
            file=str(self.file),
            runtime=self.runtime.program,
            containers=self._longnames(name),
            keep_network=any(one.network == network for one in bridges),
        )
        fence = {one.name: tuple(filter(None, one.macs.values())) for one in bridges}
        if given := str(self.lab.mgmt.get("bridge") or ""):
            fence.setdefault(given, ())
        spare = [one.name for one in cabling_here() if one.name.startswith("br-")]
        guard.put_up(name, Fence(fence, tuple(one for one in spare if one not in fence)))
        await self._deploy()
        nodes = Nodes(self.runtime, name, containers_of(self.state.fabric))
        if wrong := nodes.not_running():
            raise FabricError(f"lab {name} is not whole: {'; '.join(wrong[:4])}")
        fence_in(name, self.runtime, nodes.now().values())
        found = cabling.read(self.state.fabric, nodes.namespaces(), name)
        cabling.refuse(found.findings, name)
        self.warnings += found.warnings
        self.state = replace(self.state, fabric=cabling.with_kinds(self.state.fabric, found))
        sow_seeds(self.state.fabric, nodes.namespaces())
        self.warnings += ways_out(self.state.fabric, nodes.namespaces())

    def _write(self, name: str) -> None:
        """Make the copy that is deployed."""
        plain = os.environ.get("RAILBREAK_CLAB_LINKS") == "plain"
        wanted = Wanted(
            name,
            stitch=self.binary.stitches and not plain,
            no_network=self.binary.skips,
            unprivileged=self.binary.stitches and bool(privileged_refused()),
            images=self._images(),
        )
        made = render(self.lab, wanted)
        self.warnings += made.notes
        if not self.binary.stitches and not plain:
            self.warnings.append(
                "this containerlab is older than 0.78 and cannot stitch links: they stay plain, "
                "and none can lose its carrier"
            )
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text(made.text, encoding="utf-8")

    def _images(self) -> dict[str, str]:
        """Images of ours for those that are not here."""
        found: dict[str, str] = {}
        for node in self.lab.nodes.values():
            image = str(node.fields.get("image") or "")
            if not image or node.kind not in ("linux", "frr") or self.runtime.has_image(image):
                continue
            ours = self.runtime.ours(f"railbreak/{'frr' if runs_as(node) == 'frr' else 'host'}")
            if ours and (image not in found or "frr" in ours):
                found[image] = ours
        return found

    def _networks(self, management: str) -> list[str]:
        modes = {str(n.fields.get("network-mode") or "") for n in self.lab.nodes.values()}
        own = [mode for mode in modes if mode not in _NO_NETWORK and ":" not in mode]
        return [management, *own]

    def _longnames(self, name: str) -> list[str]:
        kept = [n for n in self.lab.nodes.values() if n.kind not in WITHOUT_CONTAINER]
        return [n.longname.replace(f"-{self.lab.name}-", f"-{name}-", 1) for n in kept]

    def _keep(self, **details: Any) -> None:
        self.state = replace(self.state, details={**self.state.details, **details})
        self.state.save(self.folder)

    async def _deploy(self) -> None:
        file = str(self.file)
        if "validate" in self.binary.verbs:
            self.progress("checking the file")
            said = await self.binary.run("validate", "-t", file, folder=self.folder)
            if said.code:
                raise FabricError(f"containerlab refuses {self.lab.source.file}: {said.sentence}")
        self.progress("deploying")
        said = await self.binary.run("deploy", "-t", file, "-f", "json", folder=self.folder)
        (self.folder / "deploy.log").write_text(said.err, encoding="utf-8")
        if said.code:
            raise FabricError(f"containerlab deploy: {said.sentence}")
        self.warnings += again(self.runtime, self.state.instance, failed_execs(said.err))


def refuse_running(name: str, boxes: Iterable[Box]) -> None:
    """Refuse a name that a running lab has.

    Raises:
        FabricError: one has it; says from where it was deployed.
    """
    for box in boxes:
        raise FabricError(
            f"lab {name} runs already, deployed from {box.file or 'somewhere else'}: "
            f"railbreak attach {name} reaches it as it is, --name OTHER deploys another copy"
        )


def refuse_shared(lab: Lab) -> None:
    """Refuse what would break things outside the lab.

    Raises:
        SpecError: a node shares the machine's own network, or Containerlab would refuse the file.
    """
    for node in lab.nodes.values():
        if str(node.fields.get("network-mode") or "") == "host":
            raise SpecError(
                f"{node.name} shares this machine's own network (network-mode: host), where faults "
                "would hit the machine; give it a network of its own",
                file=lab.source.file,
            )
    for check in lab.checks:
        raise check.error


def cabling_here() -> list[cabling.Outer]:
    """Devices of this machine."""
    return list(inside(cabling.HERE, cabling.read_outers).values())


def fence_in(instance: str, runtime: Runtime, boxes: Iterable[Box]) -> None:
    """Hold back exactly what comes from the networks of a lab's containers."""
    mine = {box.id: box for box in boxes}
    names = {net for box in mine.values() for net in box.networks if net not in _NO_NETWORK}
    bridges = {}
    for one in runtime.bridges(sorted(names)):
        others = [mac for container, mac in one.macs.items() if container not in mine and mac]
        bridges[one.name] = tuple(others)
    guard.put_up(instance, Fence(bridges))


def again(runtime: Runtime, lab: str, failed: Iterable[Failed]) -> list[str]:
    """Run once more what failed of `exec:`; sentences on what fails again.

    Containerlab only logs it. An address or route that is there already is as good as done.
    """
    boxes = {box.node: box for box in runtime.boxes(lab)}
    told = []
    for one in failed:
        if any(word in one.said for word in _THERE_ALREADY) or one.node not in boxes:
            continue
        said = runtime("exec", boxes[one.node].name, *shlex.split(one.command))
        if said.code and not any(word in said.err for word in _THERE_ALREADY):
            told.append(str(one))
    return told


def sow_seeds(fabric: Fabric, namespaces: Mapping[str, str]) -> None:
    """Give every node a hash seed of its own, as the embedded fabric does, so paths compare.

    Left out where the file sets one, and where the kernel has none.
    """
    for node, path in namespaces.items():
        if _SEED.replace("/", ".") in (fabric.nodes[node].settings.get("sysctls") or {}):
            continue
        seed = str(seed_of(fabric.name, node))
        with contextlib.suppress(OSError, FabricError):
            inside(path, partial(Path("/proc/sys", _SEED).write_text, seed))


def ways_out(fabric: Fabric, namespaces: Mapping[str, str]) -> list[str]:
    """One sentence where nodes have a default route that is no link of the fabric."""
    from chaos.drivers.audit import read_interfaces
    from chaos.drivers.fib import read_fib

    ports = {(port.node, port.name) for port in fabric.walk()}
    found = []
    for node, path in namespaces.items():
        names = {index: one.name for index, one in inside(path, read_interfaces).items()}
        for prefix, legs in inside(path, read_fib).items():
            outside = {names.get(leg.ifindex, "") for leg in legs}
            if prefix.prefixlen == 0 and any((node, name) not in ports for name in outside):
                found.append(node)
    if not found:
        return []
    listed = ", ".join(found[:4]) + (" …" if len(found) > 4 else "")
    return [
        f"{len(found)} nodes ({listed}) have a default route over the management network; the "
        "guard keeps their packets on this machine"
    ]


async def remove(folder: Path, known: State, runtime: Runtime) -> None:
    """Destroy a lab of ours and see that nothing of it is left; repeatable.

    Raises:
        FabricError: something is left; says what.
    """
    lab, file = str(known.details.get("lab", "")), str(known.details.get("file", ""))
    if lab and file:
        boxes = runtime.boxes(lab)
        ours = [box for box in boxes if box.file == file]
        if len(ours) == len(boxes):
            await _destroy(folder, known, runtime)
        until = time.monotonic() + (0.0 if known.ready else _LATE_S)
        while True:
            late = [box for box in runtime.boxes(lab) if box.file == file]
            runtime.remove(late)
            if time.monotonic() >= until:
                break
            await asyncio.sleep(0.25)
        left = [box.name for box in runtime.boxes(lab) if box.file == file]
        if left:
            raise FabricError(
                f"lab {lab}: containers are left: {', '.join(left)}; "
                f"remove them: {runtime.program} rm -f {' '.join(left)}"
            )
        if len(ours) == len(boxes):
            _sweep(lab, [str(name) for name in known.details.get("containers", ())])
    guard.take_down(known.instance)


async def _destroy(folder: Path, known: State, runtime: Runtime) -> None:
    words = ["-t", str(known.details["file"]), "--cleanup"]
    if known.details.get("keep_network"):
        words.append("--keep-mgmt-net")
    with contextlib.suppress(FabricError):  # without the program, the runtime removes the rest
        binary = Binary.find(runtime.program)
        await binary.run("destroy", *words, folder=folder, deadline_s=300)


def _sweep(lab: str, containers: Iterable[str]) -> None:
    """Names that an interrupted or parked lab leaves behind."""
    for name in containers:
        link = Path("/run/netns", name)
        with contextlib.suppress(OSError):
            if link.is_symlink():
                link.unlink()
        park = Path("/run/netns", f"clab-park-{name}")
        if park.exists():
            with contextlib.suppress(OSError):
                umount(str(park))
            park.unlink(missing_ok=True)
    Path("/etc/ssh/ssh_config.d", f"clab-{lab}.conf").unlink(missing_ok=True)


def api_of(runtime: Runtime) -> tuple[int, int]:
    """Version of the daemon's interface; (0, 0) where it does not say."""
    said = ask((runtime.program, "version", "--format", "{{.Server.APIVersion}}"), deadline_s=10.0)
    major, _, minor = said.out.strip().partition(".")
    return (int(major), int(minor)) if major.isdecimal() and minor.isdecimal() else (0, 0)
