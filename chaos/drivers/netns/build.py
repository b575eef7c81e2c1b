"""From a fabric to running namespaces, step by step. Whatever happens, `remove` undoes all of it.

Nothing is made before the keeper is there, and everything after it hangs on the keeper.
"""

from __future__ import annotations

import asyncio
import dataclasses
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from chaos.drivers.fib import read_addresses
from chaos.drivers.netns import frr
from chaos.drivers.netns.keeping import Keeper
from chaos.drivers.netns.links import bring_up, join_wires, make_cables
from chaos.drivers.netns.nodes import (
    Command,
    Entry,
    Line,
    binds_of,
    environment,
    exec_lines,
    furnish,
    own_by_frr,
    write_hosts,
)
from chaos.drivers.netns.plan import Plan
from chaos.drivers.state import State
from chaos.errors import FabricError
from chaos.fabric import Fabric, Node
from chaos.netns import inside

Tell = Callable[[str], None]
_WIRE_SYSCTLS = {f"net.ipv6.conf.{which}.disable_ipv6": "1" for which in ("all", "default")}
_EXEC_DEADLINE_S = 60.0
_START_DEADLINE_S = 30.0


class Build:
    """One bringing-up in progress.

    Attributes:
        state: What is known so far; saved in `folder` after every step that makes something.
        keeper: The process that holds what is built.
        warnings: What was left out, one sentence each.
    """

    def __init__(self, folder: Path, state: State, plan: Plan, keeper: Keeper, tell: Tell) -> None:
        self.folder, self.state, self.plan, self.tell = folder, state, plan, tell
        self.fabric: Fabric = state.fabric
        self.keeper = keeper
        self.warnings: list[str] = list(plan.warnings)

    async def run(self) -> None:
        """Everything, in order."""
        self.tell("namespaces")
        self._namespaces()
        self.tell("links")
        nodes = {name: str(self.folder / "ns" / name) for name in self.fabric.nodes}
        wire = str(self.folder / "ns" / ".wire")
        make_cables(self.plan.cables, nodes, wire)
        join_wires(self.plan, wire)
        for name, path in nodes.items():
            bring_up(self.plan, name, path)
        await asyncio.sleep(0)
        lines = {
            name: exec_lines(node, self.fabric, self.warnings.append)
            for name, node in self.fabric.nodes.items()
        }
        self.tell("exec lines")
        await self._exec(lines, after_routing=False)
        routers = [node for node in self.fabric.nodes.values() if node.runs == "frr"]
        if routers:
            self.tell(f"FRR on {len(routers)} routers")
            await self._routing(routers)
            await self._exec(lines, after_routing=True)
        self._programs()
        self._name_addresses()
        for node in routers:
            frr.check_log(node.name, self.folder / "nodes" / node.name)

    def _namespaces(self) -> None:
        (self.folder / "ns").mkdir()
        (self.folder / "logs").mkdir()
        homes = self.folder / "nodes"
        mounts = {
            name: furnish(node, self.fabric, homes / name)
            for name, node in self.fabric.nodes.items()
        }
        wire = self._make(".wire", None, _WIRE_SYSCTLS)
        spaces = {
            name: self._make(name, mounts[name], self.plan.sysctls[name])
            for name in self.fabric.nodes
        }
        self.state = dataclasses.replace(self.state, spaces=spaces, wire=wire)
        self.state.save(self.folder)

    def _make(
        self, name: str, mounts: list[tuple[str, str, bool]] | None, sysctls: Mapping[str, str]
    ) -> dict[str, int]:
        made: dict[str, int] = self.keeper.order(
            "node", name=name, mounts=mounts, sysctls=dict(sysctls)
        )["spaces"]
        target = f"/proc/{self.keeper.life.pid}/fd/{made['net']}"
        (self.folder / "ns" / name).symlink_to(target)
        return made

    def entry(self, node: str) -> Entry:
        """The way into a node."""
        return entry_of(self.state, node)

    async def _exec(self, lines: Mapping[str, list[Line]], *, after_routing: bool) -> None:
        """All nodes at once, each node's lines in order.

        Raises:
            FabricError: a line failed; names node, line and what it said.
        """
        async with asyncio.TaskGroup() as group:
            for name, listed in lines.items():
                mine = [line for line in listed if line.after_routing == after_routing]
                if mine:
                    group.create_task(self._exec_node(self.fabric.nodes[name], mine))

    async def _exec_node(self, node: Node, lines: list[Line]) -> None:
        env = environment(node, self.fabric)
        for line in lines:
            done = await Command(self.entry(node.name), line.argv, env).run(_EXEC_DEADLINE_S)
            if done.code:
                said = (done.stderr or done.stdout).decode(errors="replace").strip()
                raise FabricError(
                    f"{node.name}: exec line {line.number} ({' '.join(line.argv)}) "
                    f"failed with status {done.code}: {said or 'it said nothing'}"
                )

    async def _routing(self, routers: list[Node]) -> None:
        folder = frr.binaries()
        plans = {}
        for node in routers:
            home = self.folder / "nodes" / node.name
            plans[node.name] = frr.routing(node, self.fabric, self._user_files(node))
            frr.write_own(plans[node.name], home)
            own_by_frr(home)
            self._start(node, plans[node.name], "zebra", folder)
        await self._appeared({name: ("zserv.api", "zebra.vty") for name in plans})
        for node in routers:
            for daemon in plans[node.name].daemons:
                if daemon == "zebra":
                    continue
                if not (folder / daemon).exists():
                    self.warnings.append(f"{node.name}: this machine's FRR has no {daemon}")
                    continue
                self._start(node, plans[node.name], daemon, folder)
        await self._appeared(
            {
                name: tuple(f"{d}.vty" for d in plan.daemons if (folder / d).exists())
                for name, plan in plans.items()
            }
        )
        async with asyncio.TaskGroup() as group:
            for node in routers:
                env = environment(node, self.fabric)
                group.create_task(frr.configure(plans[node.name], self.entry(node.name), env))

    def _user_files(self, node: Node) -> dict[str, Path]:
        """The user's files under /etc/frr, by name."""
        found: dict[str, Path] = {}
        base = Path(self.fabric.source).resolve().parent
        for text in binds_of(node):
            source, _, target = text.partition(":")
            path = Path(target.partition(":")[0])
            if path == Path("/etc/frr"):
                inside = base / Path(source).expanduser()
                found |= {item.name: item for item in inside.iterdir() if item.is_file()}
            elif path.parent == Path("/etc/frr"):
                found[path.name] = base / Path(source).expanduser()
        return found

    def _start(self, node: Node, plan: frr.Routing, daemon: str, folder: Path) -> None:
        self.keeper.order(
            "start",
            node=node.name,
            argv=frr.argv_of(daemon, plan.daemons[daemon], folder),
            env=environment(node, self.fabric) | {"TZ": "UTC"},
            log=str(self.folder / "nodes" / node.name / "frr.log"),
            first=True,
        )

    async def _appeared(self, names: Mapping[str, tuple[str, ...]]) -> None:
        files = {
            self.folder / "nodes" / node / "run" / "frr" / name: f"{node}'s {name}"
            for node, listed in names.items()
            for name in listed
        }
        try:
            await frr.wait_for_files(files, _START_DEADLINE_S, self._died)
        except FabricError as error:
            raise FabricError(f"FRR did not start: {error}") from None

    def _died(self) -> str:
        """A sentence on daemons that ended by themselves; empty when none did."""
        dead: Mapping[str, int] = self.keeper.order("dead")["dead"]
        return "; ".join(
            f"{what} ended with status {code}" for what, code in dead.items() if code != 0
        )

    def _name_addresses(self) -> None:
        """Let every node resolve every node's name, now that the addresses are there."""
        found: dict[str, str] = {}
        for name in self.fabric.nodes:
            held = inside(str(self.folder / "ns" / name), read_addresses)
            order = [1, *(end.ifindex for end in self.plan.ends_of(name))]
            listed = [str(item.ip) for index in order for item in held.get(index, ())]
            found |= {name: listed[0]} if listed else {}
        for name in self.fabric.nodes:
            write_hosts(self.folder / "nodes" / name, self.fabric, found)

    def _programs(self) -> None:
        """Start the main programs that the file names (`entrypoint`, `cmd`)."""
        for node in self.fabric.nodes.values():
            if node.runs != "shell":
                continue
            words = [node.settings.get("entrypoint") or "", node.settings.get("cmd") or ""]
            argv = [word for text in words for word in shlex.split(str(text))]
            if argv:
                self.keeper.order(
                    "start",
                    node=node.name,
                    argv=argv,
                    env=environment(node, self.fabric),
                    log=str(self.folder / "nodes" / node.name / "cmd.log"),
                )


def entry_of(state: State, node: str) -> Entry:
    """The way into a node of a running fabric."""
    held = f"/proc/{state.keeper.pid}"
    paths = {kind: f"{held}/fd/{fd}" for kind, fd in state.spaces[node].items()}
    return Entry(node, paths | {"pid": f"{held}/ns/pid"})
