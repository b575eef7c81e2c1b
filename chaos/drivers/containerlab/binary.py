"""The program `containerlab`: which version it is, what it can, and what its log says."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from chaos.drivers.containerlab.calls import Said, ask, call
from chaos.errors import CapabilityError

PROGRAM = "containerlab"
FLOOR, PREFERRED = (0, 75), (0, 78)
#: How long an interrupted deploy may go on: containers that it has asked for come up anyhow.
_PATIENCE_S = 15.0
_VERSION = re.compile(r"version:\s*v?(\d+)\.(\d+)")
_EXEC = re.compile(
    r'Failed to execute command command=(?P<command>"(?:\\.|[^"])*"|\S+) '
    r"node=(?P<node>\S+) rc=(?P<rc>-?\d+)"
)
_STAMP = re.compile(r"^\d\d:\d\d:\d\d ")


@dataclass(frozen=True, slots=True)
class Binary:
    """The `containerlab` that is here.

    Attributes:
        version: Major and minor number; (0, 0) where it does not know them itself.
        verbs: Its commands.
        runtime: Runtime it is told to use.
    """

    version: tuple[int, int]
    verbs: frozenset[str]
    runtime: str = "docker"

    @classmethod
    def find(cls, runtime: str = "docker") -> Binary:
        """Look at it.

        Raises:
            CapabilityError: it is not here, or too old.
        """
        version = version_in(ask((PROGRAM, "version"), deadline_s=15.0).out)
        verbs = verbs_in(ask((PROGRAM, "--help"), deadline_s=15.0).out)
        found = cls(version, verbs, runtime)
        if not found.new_enough:
            what = ".".join(map(str, version)) if any(version) else "of an unknown version"
            raise CapabilityError(
                f"containerlab {what} is too old: it cannot stop and start a node with its links; "
                f"{FLOOR[0]}.{FLOOR[1]} is the least, {PREFERRED[0]}.{PREFERRED[1]} is better"
            )
        return found

    @property
    def new_enough(self) -> bool:
        """Whether it can do what no driver can go without."""
        return self.version >= FLOOR if any(self.version) else {"stop", "start"} <= self.verbs

    @property
    def stitches(self) -> bool:
        """Whether it knows `veth-stitch`, `privileged: false` and `validate` (0.78)."""
        return self.version >= PREFERRED if any(self.version) else "validate" in self.verbs

    @property
    def skips(self) -> bool:
        """Whether it can do without a management network (tried with 0.79)."""
        return self.version >= (0, 79) if any(self.version) else self.stitches

    def argv(self, verb: str, *words: str) -> tuple[str, ...]:
        """The whole command of a verb."""
        told = () if self.runtime == "docker" else ("--runtime", self.runtime)
        return (PROGRAM, verb, *told, *words)

    async def run(self, verb: str, *words: str, folder: Path, deadline_s: float = 600.0) -> Said:
        """Run a verb; what it writes beside the lab goes under `folder`."""
        temp = folder / "tmp"
        temp.mkdir(parents=True, exist_ok=True)
        env = {"CLAB_LABDIR_BASE": str(folder), "TMPDIR": str(temp)}
        patience_s = _PATIENCE_S if verb == "deploy" else 0.0
        argv = self.argv(verb, *words)
        return await call(argv, env=env, deadline_s=deadline_s, patience_s=patience_s)


def version_in(text: str) -> tuple[int, int]:
    """Major and minor number in the answer of `version`; (0, 0) for a build without one.

    Examples:
        >>> version_in("    version: 0.79.0\\n     commit: none")
        (0, 79)
    """
    found = _VERSION.search(text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def verbs_in(text: str) -> frozenset[str]:
    """Commands that `--help` lists.

    Examples:
        >>> sorted(verbs_in("  COMMANDS  \\n\\n    deploy [--flags]   D\\n    validate   V\\n"))
        ['deploy', 'validate']
    """
    _, _, rest = text.partition("COMMANDS")
    listed, _, _ = rest.partition("FLAGS")
    if not rest:  # the plainer help of older ones
        _, _, rest = text.partition("Available Commands:")
        listed, _, _ = rest.partition("Flags:")
    return frozenset(
        line.split()[0] for line in listed.splitlines() if re.match(r"^\s+[a-z]+[ |\[]", line)
    )


@dataclass(frozen=True, slots=True)
class Failed:
    """A line of `exec:` that failed, which Containerlab only logs."""

    node: str
    command: str
    code: int
    said: str

    def __str__(self) -> str:
        why = f": {self.said}" if self.said else ""
        return f"{self.node}: exec line {self.command!r} ended with {self.code}{why}"


def failed_execs(log: str) -> tuple[Failed, ...]:
    """Lines of `exec:` that failed, from the log of `deploy` or `start`.

    Examples:
        >>> log = "04:44:38 ERRO Failed to execute command command=false node=b rc=1"
        >>> str(failed_execs(log)[0])
        "b: exec line 'false' ended with 1"
    """
    found: list[Failed] = []
    inside = False
    for line in log.splitlines():
        if _STAMP.match(line):
            hit = _EXEC.search(line)
            inside = hit is not None
            if hit is not None:
                command = hit["command"]
                if command.startswith('"'):
                    command = command[1:-1].replace('\\"', '"')
                found.append(Failed(hit["node"], command, int(hit["rc"]), ""))
        elif inside and "│" in line:
            said = f"{found[-1].said} {line.partition('│')[2].strip()}".strip()
            found[-1] = replace(found[-1], said=said)
    return tuple(found)
