"""Where the shipped fabrics and experiments lie: in a checkout, else inside the wheel."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parent.parent
_WHEEL = Path(__file__).resolve().parent / "_shipped"


def _fabric_folder() -> Path:
    for root in (_CHECKOUT, _WHEEL):
        if (root / "containerlab").is_dir():
            return root / "containerlab"
    return _WHEEL / "containerlab"


def _experiment_folder() -> Path:
    return Path(str(files("suites"))) / "experiments"


def fabric_path(name: str) -> Path | None:
    """The topology file of the shipped fabric `name`, or None.

    Examples:
        >>> fabric_path("pair").name
        'pair.clab.yml'
        >>> fabric_path("../pair") is None
        True
    """
    return _fabric_folder() / name / f"{name}.clab.yml" if name in fabric_names() else None


def fabric_names() -> tuple[str, ...]:
    """Names of the shipped fabrics, sorted.

    Examples:
        >>> fabric_names()
        ('clos-2x4x8', 'clos-graceful', 'pair', 'rails-2x4')
    """
    found = _fabric_folder().glob("*/*.clab.yml")
    return tuple(sorted(p.parent.name for p in found if p.name == f"{p.parent.name}.clab.yml"))


def experiment_path(name: str) -> Path | None:
    """The file of the shipped experiment `name`, or None."""
    return _experiment_folder() / f"{name}.yaml" if name in experiment_names() else None


def experiment_names() -> tuple[str, ...]:
    """Names of the shipped experiments, sorted."""
    return tuple(sorted(path.stem for path in _experiment_folder().glob("*.yaml")))
