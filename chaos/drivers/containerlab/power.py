"""Starts a stopped node again and sees that it is whole: `python -m … FOLDER NODE`.

`containerlab start` ends with 0 even where it brought nothing back, so its links, and the lines
of `exec:` that it ran again, are looked at here. It undoes a stop, so it is repeatable.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from chaos.drivers import state
from chaos.drivers.containerlab import cabling, deploy, frrlog
from chaos.drivers.containerlab.binary import Binary, failed_execs
from chaos.drivers.containerlab.calls import ask
from chaos.drivers.containerlab.nodes import Nodes
from chaos.drivers.containerlab.runtime import Runtime
from chaos.errors import FabricError, RailbreakError

_LINKS_S, _DAEMONS_S = 10.0, 5.0


def start(folder: Path, node: str) -> None:
    """Start one node of an instance.

    Raises:
        FabricError: it does not run, or its links are not back.
    """
    known = state.read_state(folder)
    if known is None:
        raise FabricError(f"{folder} holds no state of a lab; start {node} by hand")
    lab = str(known.details["lab"])
    runtime = Runtime(str(known.details.get("runtime") or "docker"))
    argv = Binary((0, 0), frozenset(), runtime.program).argv("start", "--name", lab, "-n", node)
    said = ask(argv, env={"TMPDIR": str(folder), "CLAB_LABDIR_BASE": str(folder)}, deadline_s=120)
    if said.code:
        raise FabricError(f"{node}: containerlab start: {said.sentence}")
    nodes = Nodes(runtime, lab, deploy.containers_of(known.fabric))
    nodes.box(node)
    give_up = time.monotonic() + _LINKS_S
    while True:
        paths = {node: nodes.namespaces()[node]}
        gone = cabling.read(known.fabric, paths, lab).findings
        if not gone:
            break
        if time.monotonic() > give_up:
            raise FabricError(f"{node} was started, yet its links are not back: {'; '.join(gone)}")
        time.sleep(0.05)
    if known.owned:
        deploy.sow_seeds(known.fabric, paths)
        if known.fabric.nodes[node].runs == "frr":
            frrlog.switch_on(runtime, nodes.box(node), _DAEMONS_S)
    for sentence in deploy.again(runtime, lab, failed_execs(said.err)):
        sys.stderr.write(f"{sentence}\n")


def main() -> int:
    """Run it; 1 with a sentence where the node is not whole."""
    try:
        start(Path(sys.argv[1]), sys.argv[2])
    except RailbreakError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
