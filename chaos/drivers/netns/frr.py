"""FRR in a node: which daemons, with which configuration, started in which order.

The node's own /etc/frr and /run/frr are private, so every path is FRR's default and `vtysh` works.
Forced from the start: `no zebra nexthop kernel enable` (with kernel nexthop groups FRR 8.4 and
others believe in ECMP legs that the kernel lost), and a log with microseconds on standard output.
"""

from __future__ import annotations

import asyncio
import re
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from chaos.drivers.netns.frrconf import bgp_stanzas, split
from chaos.drivers.netns.nodes import Command, Entry
from chaos.errors import CapabilityError, FabricError
from chaos.fabric import Fabric, Node

_FOLDERS = ("/usr/lib/frr", "/usr/libexec/frr", "/usr/lib64/frr", "/usr/local/sbin")
#: Started in this order; zebra first, alone.
_DAEMONS = (
    *("zebra", "bgpd", "ospfd", "ospf6d", "ripd", "ripngd", "isisd", "pimd", "pim6d", "ldpd"),
    *("nhrpd", "eigrpd", "babeld", "sharpd", "pbrd", "staticd", "bfdd", "fabricd", "vrrpd"),
    "pathd",
)
_BY_STANZA = {
    "router bgp": "bgpd",
    "router ospf": "ospfd",
    "router ospf6": "ospf6d",
    "router isis": "isisd",
    "router rip": "ripd",
    "bfd": "bfdd",
}
_REFUSED = re.compile(
    r"(?:No such command|Ambiguous command|Incomplete|Config Failed) on config line \d+: (.*)"
)


@dataclass(frozen=True, slots=True)
class Routing:
    """How a node's routing is started.

    Attributes:
        node: Its name.
        daemons: Options per daemon, in the order of starting.
        config: Text for `vtysh`: the user's integrated file and what we add after it.
        source: The user's file that `config` begins with, for messages; empty for none.
        own: Text per daemon for its own file: what is forced, then the user's if there is one.
    """

    node: str
    daemons: Mapping[str, tuple[str, ...]]
    config: str
    source: str
    own: Mapping[str, str]


def binaries() -> Path:
    """Folder of FRR's daemons.

    Raises:
        CapabilityError: FRR is not installed.
    """
    for folder in _FOLDERS:
        if Path(folder, "zebra").exists():
            return Path(folder)
    raise CapabilityError("FRR is not installed here; on Debian or Ubuntu: apt-get install frr")


def routing(node: Node, fabric: Fabric, etc: Mapping[str, Path]) -> Routing:
    """Work out what to start.

    Args:
        node: The router.
        fabric: Its fabric.
        etc: The user's files by name (`frr.conf`, `daemons`, `bgpd.conf`, …).
    """
    texts = {name: path.read_text(encoding="utf-8") for name, path in etc.items()}
    config = texts.get("frr.conf", "")
    said, options = _read_daemons(texts.get("daemons", ""))
    extras = (node.settings.get("extras") or {}).get("frr") or {}
    said |= dict.fromkeys(extras.get("daemons") or (), True)
    wanted = {name for name, yes in said.items() if yes} | {"zebra"}
    if not said:
        stanzas = {key for key in _BY_STANZA if re.search(rf"^{key}\b(?!\d)", config, re.M)}
        wanted |= {_BY_STANZA[key] for key in stanzas}
        wanted |= {name.removesuffix(".conf") for name in texts} & set(_DAEMONS)
    if said.get("staticd", True) or re.search(r"^ip(v6)? route ", config, re.M):
        wanted.add("staticd")
    daemons = {name: options.get(name, ()) for name in _DAEMONS if name in wanted}
    whole = "\n".join(texts.values())
    pieces = split(config, daemons)
    added = [
        line
        for header in bgp_stanzas(config)
        for line in (header, " bgp log-neighbor-changes", "exit", "")
    ]
    if pieces is not None:
        config = ""
        pieces = {name: text + "\n".join(added * (name == "bgpd")) for name, text in pieces.items()}
    elif config:
        config += "\n" * (not config.endswith("\n")) + "\n".join(added)
    own = {
        name: _forced(name, whole) + (pieces or {}).get(name, "") + texts.get(f"{name}.conf", "")
        for name in daemons
    }
    source = str(etc["frr.conf"]) if "frr.conf" in etc else ""
    return Routing(node.name, daemons, config, source, own)


def _forced(daemon: str, config: str) -> str:
    level = "debugging" if daemon == "bfdd" else "informational"
    lines = ["log timestamp precision 6", f"log stdout {level}"]
    if daemon == "zebra":
        lines.append("no zebra nexthop kernel enable")
    if daemon == "bfdd":
        lines.append("debug bfd peer")  # without it a session's changes are not logged
    defaults = re.search(r"^frr defaults \w+", config, re.M)
    return "\n".join([*([defaults[0]] if defaults else []), *lines, ""])


def _read_daemons(text: str) -> tuple[dict[str, bool], dict[str, tuple[str, ...]]]:
    """Read Debian's `daemons` file: `bgpd=yes`, `bgpd_options="-A 127.0.0.1"`."""
    said: dict[str, bool] = {}
    options: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        name, equals, value = line.partition("#")[0].strip().partition("=")
        if not equals:
            continue
        words = shlex.split(value)
        if name.endswith("_options"):
            given = shlex.split(" ".join(words))
            kept = tuple(word for word in given if word not in ("--daemon", "-d"))
            options[name.removesuffix("_options")] = kept
        elif name in _DAEMONS:
            said[name] = words in (["yes"], ["1"])
    return said, options


def write_own(plan: Routing, home: Path) -> None:
    """Write the daemons' own files and the merged one where the node will see them."""
    for name, text in plan.own.items():
        (home / "run" / "frr" / f"start-{name}.conf").write_text(text, encoding="utf-8")
    (home / "run" / "frr" / "start.conf").write_text(plan.config, encoding="utf-8")
    vtysh = home / "etc-frr" / "vtysh.conf"
    if vtysh.parent.is_dir() and not vtysh.exists():
        vtysh.touch()


def argv_of(daemon: str, options: tuple[str, ...], folder: Path) -> list[str]:
    """The command line of one daemon, in the foreground."""
    return [str(folder / daemon), "-f", f"/run/frr/start-{daemon}.conf", *options]


async def wait_for_files(
    paths: Mapping[Path, str], deadline_s: float, died: Callable[[], str]
) -> None:
    """Return when every path exists.

    Raises:
        FabricError: some did not appear in time, or `died` has a sentence to say.
    """
    give_up = time.monotonic() + deadline_s
    look = time.monotonic() + 0.2
    while missing := [what for path, what in paths.items() if not path.exists()]:
        if time.monotonic() > look:
            look += 0.2
            if sentence := died():
                raise FabricError(sentence)
        if time.monotonic() > give_up:
            raise FabricError(f"after {deadline_s:g} s not there: {', '.join(missing[:6])}")
        await asyncio.sleep(0.005)


def check_log(node: str, home: Path) -> None:
    """Look for lines of the configuration that a daemon refused when it started.

    Raises:
        FabricError: there are some; quotes them.
    """
    log = home / "frr.log"
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    refused = [line.strip() for line in _REFUSED.findall(text)]
    if refused:
        quoted = "; ".join(repr(line) for line in refused[:4])
        raise FabricError(f"{node}: FRR refused lines of its configuration: {quoted}")


async def configure(plan: Routing, entry: Entry, env: Mapping[str, str]) -> None:
    """Hand the integrated configuration to the running daemons.

    Raises:
        FabricError: FRR refused a line; names file, line and its words.
    """
    if not plan.config.strip():
        return
    argv = ("vtysh", "-f", "/run/frr/start.conf")
    done = await Command(entry, argv, env).run(deadline_s=30.0)
    if done.code:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        wrong = [line for line in said.splitlines() if "%" in line] or said.splitlines()[-1:]
        place = plan.source or "configuration"
        raise FabricError(f"{plan.node}: FRR refused its {place}: {'; '.join(wrong)}")
