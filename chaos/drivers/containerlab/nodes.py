"""The containers of one lab as they are now: asked for once, and again when a process has ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shlex
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from chaos.driver import Done
from chaos.drivers.containerlab.runtime import Box, Runtime, by_node, unreachable
from chaos.drivers.state import start_ticks
from chaos.errors import FabricError, SpecError
from chaos.timeline import now_ns

_AGAIN_S = 0.2
_MARK = "RAILBREAK_EXEC"
_NOBODY = "/proc/0/ns/net"


class Nodes:
    """Containers by node; a node that runs another process than before is asked for anew.

    Args:
        runtime: The container runtime.
        lab: Name of the lab.
        names: Nodes that have a container.
    """

    def __init__(self, runtime: Runtime, lab: str, names: Collection[str]) -> None:
        self.runtime, self.lab, self.names = runtime, lab, tuple(names)
        self._boxes: dict[str, Box] = {}
        self._ticks: dict[str, int] = {}
        self._asked = 0.0

    def now(self, *, fresh: bool = False) -> Mapping[str, Box]:
        """Every container of the lab, by node.

        Raises:
            FabricError: the lab does not run, or has a node twice.
        """
        if fresh or not self._boxes or not self._as_it_was():
            self._ask()
        return self._boxes

    def _as_it_was(self) -> bool:
        """Whether every process that was there still is; who had none may have one by now."""
        for node, box in self._boxes.items():
            if box.pid and start_ticks(box.pid) != self._ticks[node]:
                return False
        idle = any(not box.pid for box in self._boxes.values())
        return not idle or time.monotonic() - self._asked < _AGAIN_S

    def _ask(self) -> None:
        boxes = by_node(self.lab, self.runtime.boxes(self.lab))
        if not boxes:
            raise FabricError(
                f"lab {self.lab} does not run: {self.runtime.program} has no container of it"
            )
        self._boxes = boxes
        self._ticks = {node: start_ticks(box.pid) for node, box in boxes.items() if box.pid}
        self._asked = time.monotonic()

    def namespaces(self) -> dict[str, str]:
        """Path of the network namespace per node; of one that is stopped, where its links wait."""
        found = {}
        for node in self.names:
            box = self.now().get(node)
            if box is not None and box.pid:
                found[node] = f"/proc/{box.pid}/ns/net"
            else:
                parked = f"/run/netns/clab-park-{box.name}" if box is not None else ""
                found[node] = parked if parked and os.path.exists(parked) else _NOBODY
        return found

    def box(self, node: str) -> Box:
        """The running container of a node.

        Raises:
            SpecError: the node has none.
            FabricError: it does not run.
        """
        if node not in self.names:
            raise SpecError(f"node {node} of lab {self.lab} is no container; it cannot be entered")
        found = self.now().get(node)
        if found is None:
            raise FabricError(
                f"node {node} of lab {self.lab} has no container any more; "
                "deploy the lab anew, or take it down"
            )
        if not found.runs:
            raise FabricError(
                f"node {node} does not run: container {found.name} is {found.status}; "
                f"start it: containerlab start --name {self.lab} -n {node}"
            )
        return found

    def not_running(self) -> list[str]:
        """One sentence per node that has no running container."""
        boxes = self.now(fresh=True)
        sentences = [f"node {node} has no container" for node in self.names if node not in boxes]
        return sentences + [
            f"node {node} does not run: container {box.name} is {box.status}"
            for node, box in boxes.items()
            if node in self.names and box.status != "running"
        ]

    async def exec(self, node: str, argv: Sequence[str], stdin: bytes, deadline_s: float) -> Done:
        """Run a command in a node's container by the runtime, never through a shell.

        Raises:
            CapabilityError: the runtime's daemon does not answer.
            FabricError: it cannot be started, or passed the deadline (then it is killed).
        """
        box = await asyncio.to_thread(self.box, node)
        label = f"{node}: {shlex.join(argv)}"
        mark = f"{_MARK}={secrets.token_hex(8)}"
        began = now_ns()
        process = await asyncio.create_subprocess_exec(
            self.runtime.program,
            *("exec", "-i", "-e", mark, box.name, *argv),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(stdin), deadline_s)
        except TimeoutError:
            raise FabricError(f"{label}: not over after {deadline_s:g} s; it was killed") from None
        finally:
            if process.returncode is None:
                _kill_marked(mark)  # the runtime's own program ends, what it started does not
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        code = process.returncode or 0
        if code and unreachable(self.runtime.program, err.decode(errors="replace")):
            # the command may have spoken of a daemon of its own: ours says whether it is there
            await asyncio.to_thread(self.runtime, "version", "--format", "{{.Server.Version}}")
        if code in (1, 125, 126, 127) and (why := _not_started(out + err)):
            raise FabricError(f"{label}: {why}")
        return Done(code, out, err, began, now_ns())


def _not_started(said: bytes) -> str:
    """Why the runtime could not even start a command; empty when it did."""
    text = " ".join(said.decode(errors="replace").split())
    if "OCI runtime exec failed" in text or "executable file" in text[:300]:
        if "executable file not found" in text or "no such file" in text:
            return "there is no such program in its container"
        return f"cannot be started: {text[:300]}"
    if text.startswith(("Error response from daemon", "Error: No such container")):
        return text[:300]
    return ""


def _kill_marked(mark: str) -> None:
    """Kill every process whose environment carries a mark."""
    wanted = mark.encode()
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
