"""Nodes: what of the machine they see, and how commands run in them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shlex
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaos.driver import Done
from chaos.errors import FabricError, SpecError
from chaos.fabric import Fabric, Node
from chaos.netns import CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, setns, unshare
from chaos.timeline import now_ns

CLONE_FS, CLONE_NEWUTS = 0x200, 0x04000000
_FLAG = {"mnt": CLONE_NEWNS, "net": CLONE_NEWNET, "uts": CLONE_NEWUTS, "pid": CLONE_NEWPID}
_INSTALLERS = ("apk", "apt", "apt-get", "yum", "dnf", "pip", "pip3")

Mount = tuple[str, str, bool]


def environment(node: Node, fabric: Fabric) -> dict[str, str]:
    """What a program started in the node finds in its environment."""
    found = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
        "CLAB_INTFS": str(len(fabric.links_of(node.name))),
    }
    for key, value in node.labels.items():
        name = "".join(letter if letter.isalnum() else "_" for letter in key).upper()
        found[f"CLAB_LABEL_{name}"] = str(value)
    given = node.settings.get("env") or {}
    return found | {str(key): str(value) for key, value in given.items()}


def furnish(node: Node, fabric: Fabric, home: Path) -> list[Mount]:
    """Write a node's own files under `home`; what must be mounted over the machine's.

    Raises:
        SpecError: a bind of the topology file that cannot be made; says why.
    """
    home.mkdir(parents=True)
    home.chmod(0o755)
    mounts: list[Mount] = []
    for target in ("/run", "/var/tmp", "/var/log/frr", "/etc/frr"):  # noqa: S108
        if not Path(target).is_dir():
            continue
        own = home / target.strip("/").replace("/", "-")
        own.mkdir()
        own.chmod(0o1777 if target == "/var/tmp" else 0o755)  # noqa: S108
        mounts.append((str(own), target, False))
    (home / "run" / "frr").mkdir(mode=0o755)
    write_hosts(home, fabric, {})
    (home / "hostname").write_text(f"{node.name}\n", encoding="utf-8")
    for name in ("hosts", "hostname"):
        if Path("/etc", name).is_file():
            mounts.append((str(home / name), f"/etc/{name}", False))
    mounts += [_bind(node, fabric, text, home) for text in binds_of(node)]
    own_by_frr(home)
    return mounts


def binds_of(node: Node) -> list[str]:
    """The node's binds; the start-up configuration of a router is one, of its frr.conf."""
    listed = [str(text) for text in node.settings.get("binds") or ()]
    startup = node.settings.get("startup-config")
    if startup and node.kind != "linux":  # for which Containerlab does not read it either
        listed.append(f"{startup}:/etc/frr/frr.conf")
    return listed


def own_by_frr(home: Path) -> None:
    """FRR's daemons drop to their own user, which must be able to write where they write."""
    with contextlib.suppress(KeyError):
        user = pwd.getpwnam("frr")
        for name in ("run/frr", "var-log-frr", "etc-frr"):
            if (home / name).exists():
                os.chown(home / name, user.pw_uid, user.pw_gid)


def write_hosts(home: Path, fabric: Fabric, addresses: Mapping[str, str]) -> None:
    """Write a node's /etc/hosts: every node by its short and its Containerlab name."""
    lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"]
    lines += [
        f"{address} {name} {'-'.join(filter(None, (fabric.prefix, fabric.name, name)))}"
        for name, address in addresses.items()
    ]
    (home / "hosts").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _bind(node: Node, fabric: Fabric, text: str, home: Path) -> Mount:
    where = f"topology.nodes.{node.name}.binds"
    source_text, colon, rest = str(text).partition(":")
    target, _, options = rest.partition(":")
    if not colon or not target.startswith("/"):
        raise SpecError(f"source:/target expected, got {text!r}", file=fabric.source, field=where)
    source = Path(source_text).expanduser()
    if not source.is_absolute():
        source = Path(fabric.source).resolve().parent / source
    if source.name == "docker.sock":
        raise SpecError(
            "the runtime's socket has no meaning in the embedded fabric; use driver containerlab",
            file=fabric.source,
            field=where,
        )
    if not source.exists():
        raise SpecError(f"{source} does not exist", file=fabric.source, field=where)
    _make_target(Path(target), source, home, node.name, where, fabric.source)
    return (str(source), target, "ro" in options.split(","))


def _make_target(target: Path, source: Path, home: Path, node: str, field: str, file: str) -> None:
    """Give the bind a place: in a folder of the node's own, or where the machine has one."""
    for top in ("/etc/frr", "/run", "/var/tmp", "/var/log/frr"):  # noqa: S108
        own = home / top.strip("/").replace("/", "-")
        if target.is_relative_to(top) and own.is_dir():
            inner = own / target.relative_to(top)
            if source.is_dir():
                inner.mkdir(parents=True, exist_ok=True)
            else:
                inner.parent.mkdir(parents=True, exist_ok=True)
                inner.touch()
            return
    if not target.exists():
        raise SpecError(
            f"{node} shows the machine's own files, and {target} is not among them to be "
            "covered; bind to a path that exists here, or use driver containerlab",
            file=file,
            field=field,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """The way into a node: a path per kind of namespace (`net`, `mnt`, `uts`, `pid`)."""

    node: str
    paths: Mapping[str, str]

    def enter(self) -> None:
        """Move the calling thread in; the thread must end afterwards."""
        unshare(CLONE_FS)
        fds = {kind: os.open(path, os.O_RDONLY | os.O_CLOEXEC) for kind, path in self.paths.items()}
        try:
            for kind in ("uts", "net", "pid", "mnt"):  # the paths open before /proc is another's
                if kind in fds:
                    setns(fds[kind], _FLAG[kind])
        finally:
            for fd in fds.values():
                os.close(fd)


class Command:
    """One command in a node, run in a thread of its own that enters the node and then ends."""

    def __init__(
        self, entry: Entry, argv: Sequence[str], env: Mapping[str, str], stdin: bytes = b""
    ) -> None:
        self.entry, self.argv, self.env, self.stdin = entry, tuple(argv), dict(env), stdin
        self._process: subprocess.Popen[bytes] | None = None
        self._cancelled = threading.Event()

    async def run(self, deadline_s: float) -> Done:
        """Run it to its end.

        Raises:
            FabricError: it cannot be started, or passed the deadline (then it is killed).
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Done] = loop.create_future()

        def answer(deed: Callable[[], None]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone: nobody listens any more
                loop.call_soon_threadsafe(lambda: None if future.done() else deed())

        def body() -> None:
            try:
                done = self._run(deadline_s)
            except BaseException as error:
                answer(lambda error=error: future.set_exception(error))  # type: ignore[misc]
            else:
                answer(lambda: future.set_result(done))

        thread = threading.Thread(target=body, name=f"exec:{self.entry.node}", daemon=True)
        thread.start()
        try:
            return await future
        finally:
            self.kill()
            thread.join()

    def _run(self, deadline_s: float) -> Done:
        label = f"{self.entry.node}: {shlex.join(self.argv)}"
        try:
            self.entry.enter()
            began = now_ns()
            self._process = subprocess.Popen(
                self.argv,
                env=self.env,
                cwd="/",
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise FabricError(f"{label}: there is no program {self.argv[0]!r} here") from None
        except OSError as error:
            raise FabricError(f"{label}: cannot be started: {error.strerror}") from None
        if self._cancelled.is_set():
            self.kill()
        try:
            out, err = self._process.communicate(self.stdin, timeout=deadline_s)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.communicate()
            raise FabricError(f"{label}: not over after {deadline_s:g} s; it was killed") from None
        return Done(self._process.returncode, out, err, began, now_ns())

    def kill(self) -> None:
        """Kill it and what it started; nothing when it is over."""
        self._cancelled.set()
        process = self._process
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Line:
    """One `exec` line of the topology file."""

    number: int
    argv: tuple[str, ...]

    @property
    def after_routing(self) -> bool:
        """Whether it talks to the routing daemons, which must be there then."""
        return any("vtysh" in word for word in self.argv)


def exec_lines(node: Node, fabric: Fabric, warn: Callable[[str], None]) -> list[Line]:
    """A node's `exec` lines, split as a shell would but never run by one; doubles left out."""
    lines: list[Line] = []
    listed: Sequence[Any] = node.settings.get("exec") or ()
    for number, text in enumerate(dict.fromkeys(str(item) for item in listed), 1):
        try:
            argv = tuple(shlex.split(text))
        except ValueError as error:
            raise SpecError(
                f"{text!r} cannot be split into words: {error}",
                file=fabric.source,
                field=f"topology.nodes.{node.name}.exec.{number - 1}",
            ) from None
        if not argv:
            continue
        if Path(argv[0]).name in _INSTALLERS:
            warn(f"{node.name}: exec {text!r} left out; programs come from this machine")
            continue
        lines.append(Line(number, argv))
    return lines
