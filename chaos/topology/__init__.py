"""`*.clab.yml` → `Fabric`, as Containerlab reads it; pure, but for reading the named files.

    text ──▶ template ──▶ environment ──▶ YAML ──▶ schema ──▶ inheritance, links ──▶ Lab ──▶ Fabric

`load_lab` takes and refuses what Containerlab 0.79 takes and refuses. `Lab.refusals` and
`Lab.warnings` say what the embedded fabric makes of it. `load` is both in one, for a file or for
the name of a shipped fabric.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from chaos.errors import SpecError, near
from chaos.fabric import Fabric
from chaos.shipped import fabric_names, fabric_path
from chaos.topology.fabric import to_fabric
from chaos.topology.lab import Check, Endpoint, Lab, LabLink, LabNode
from chaos.topology.loader import load_file
from chaos.topology.show import lab_json

__all__ = [
    "Check",
    "Endpoint",
    "Lab",
    "LabLink",
    "LabNode",
    "find",
    "lab_json",
    "load",
    "load_lab",
    "to_fabric",
]


def find(name: str) -> Path:
    """The topology file called `name`: a path, a folder with one `*.clab.yml`, or a shipped fabric.

    Raises:
        SpecError: there is none, or a folder holds several.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = fabric_path(name)
    if shipped is not None:
        return shipped
    if path.is_dir():
        inside = sorted(path.glob("*.clab.y*ml"))
        if len(inside) == 1:
            return inside[0]
        listed = ", ".join(file.name for file in inside) or "none"
        raise SpecError(f"wanted one *.clab.yml in {name}, found {listed}; name the file")
    known = near(name, fabric_names())
    raise SpecError(f"found no file {name!r} and no shipped fabric of that name; {known}")


def load_lab(name: str | Path, *, environ: Mapping[str, str] | None = None) -> Lab:
    """The resolved lab of a topology file, or of a shipped fabric, as Containerlab sees it.

    Args:
        name: Path of a topology file of any name, or the name of a shipped fabric.
        environ: The environment for `$NAME`; the process's own by default.

    Raises:
        SpecError: Containerlab would refuse the file as well.
    """
    return load_file(find(str(name)), environ)


def load(name: str, *, environ: Mapping[str, str] | None = None, strict: bool = False) -> Fabric:
    """The fabric of a topology file, or of a shipped fabric, that the embedded driver can bring up.

    Args:
        name: Path of a topology file, or the name of a shipped fabric.
        environ: The environment for `$NAME`; the process's own by default.
        strict: Refuse also what would be left out with a warning.

    Raises:
        SpecError: refused; the sentence names file, line, field, what was found and what is right.

    Examples:
        >>> load("pair").links[0].id
        'host1:eth1--router1:eth1'
    """
    lab = load_lab(find(name), environ=environ)
    if lab.refusals:
        first, *others = lab.refusals
        if others:
            message = f"{first.reason} (and {len(others)} more)"
            raise SpecError(message, file=first.file, line=first.line, field=first.field)
        raise first
    if strict and lab.warnings:
        message = f"{lab.warnings[0]} (strict; {len(lab.warnings)} such in all)"
        raise SpecError(message, file=lab.source.file)
    return to_fabric(lab)
