"""What this machine can do with Containerlab: asked quickly, and quietly where nothing is there."""

from __future__ import annotations

import shutil

from chaos.driver import Capability
from chaos.drivers.containerlab import guard
from chaos.drivers.containerlab.binary import PREFERRED, PROGRAM, Binary
from chaos.drivers.containerlab.privileges import privileged_refused
from chaos.drivers.containerlab.runtime import Runtime
from chaos.errors import RailbreakError


def probe() -> tuple[Capability, ...]:
    """The program, the runtime, and what of both is needed for which faults."""
    program = _program()
    runtime = _runtime()
    if not (program[0].here and runtime.here):
        return (program[0], runtime)
    refused = privileged_refused()
    unguarded = guard.possible()
    return (
        *program,
        runtime,
        Capability(
            "privileged_nodes",
            not refused,
            refused,
            "nodes are deployed with privileged: false and cap-add" if refused else "",
        ),
        Capability(
            "lab_guard",
            not unguarded,
            unguarded,
            "install nftables; without it no lab is touched" if unguarded else "",
        ),
    )


def _program() -> tuple[Capability, ...]:
    if shutil.which(PROGRAM) is None:
        cure = "see https://containerlab.dev/install"
        return (Capability(PROGRAM, False, f"no program {PROGRAM}", cure),)
    try:
        found = Binary.find()
    except RailbreakError as error:
        return (Capability(PROGRAM, False, str(error), "see https://containerlab.dev/install"),)
    version = ".".join(map(str, found.version)) if any(found.version) else "unknown"
    least = ".".join(map(str, PREFERRED))
    return (
        Capability(PROGRAM, True, f"version {version}"),
        Capability(
            "veth_stitch",
            found.stitches,
            "" if found.stitches else f"containerlab {version} is older than {least}",
            "" if found.stitches else f"install {least} or newer; without it no link loses carrier",
        ),
    )


def _runtime() -> Capability:
    try:
        runtime = Runtime.find()
        said = runtime("version", "--format", "{{.Server.Version}}", deadline_s=5.0)
    except RailbreakError as error:
        reason, _, cure = str(error).rpartition("; ")
        return Capability("container_runtime", False, reason or cure, cure)
    if said.code:
        return Capability("container_runtime", False, said.sentence, f"start {runtime.program}")
    return Capability("container_runtime", True, f"{runtime.program} {said.out.strip()}")
