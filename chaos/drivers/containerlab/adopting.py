"""Finding a lab that runs, by its name, its topology file, or what Containerlab wrote of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from chaos.drivers.containerlab.runtime import Runtime, by_node
from chaos.errors import FabricError, SpecError, near
from chaos.fabric import Fabric
from chaos.topology import load_lab, to_fabric


@dataclass(frozen=True, slots=True)
class Found:
    """A running lab and what its file says."""

    lab: str
    file: str
    fabric: Fabric


def look_up(runtime: Runtime, target: str, files: tuple[str, ...] = ()) -> Found:
    """The running lab that is meant; reads only.

    Args:
        runtime: The container runtime.
        target: Its name, its topology file, or its `topology-data.json`.
        files: Its topology file, where that is elsewhere than where it was deployed from.

    Raises:
        FabricError: no such lab runs, or its file is not to be found.
        SpecError: the file cannot be read, or is not that lab's.
    """
    path = Path(target)
    given = files[0] if files else ""
    if path.is_dir() and not runtime.boxes(target):  # a lab may lie in a folder of its name
        raise SpecError(f"{target} is a folder; name the lab or its topology file")
    if path.is_file() and path.suffix == ".json":
        name = _named_in(path)
    elif path.is_file():
        name, given = load_lab(path).name, given or str(path.resolve())
    else:
        name = target
    boxes = by_node(name, runtime.boxes(name))
    if not boxes:
        running = sorted({box.lab for box in runtime.boxes()})
        raise FabricError(f"no lab {name!r} runs here; {near(name, running)}")
    file = given or next(iter(boxes.values())).file
    if not Path(file).is_file():
        raise FabricError(
            f"lab {name} was deployed from {file or 'a file that it does not name'}, which is not "
            "here any more; give its topology file with --links"
        )
    fabric = replace(to_fabric(load_lab(file)), name=name)
    foreign = sorted(set(boxes) - set(fabric.nodes))
    if foreign:
        raise FabricError(
            f"lab {name} has nodes that {file} does not know: {', '.join(foreign[:6])}; "
            "give the file it was deployed from"
        )
    return Found(name, file, fabric)


def _named_in(path: Path) -> str:
    try:
        name = json.loads(path.read_text(encoding="utf-8"))["name"]
    except (OSError, ValueError, KeyError, TypeError):
        raise SpecError(
            "found no lab in it, wanted a topology-data.json of Containerlab", file=str(path)
        ) from None
    return str(name)
