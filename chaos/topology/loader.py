"""`load_file`: a topology file → the resolved lab, as Containerlab's own loader sees it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chaos.errors import SpecError
from chaos.topology.checks import deploy_checks
from chaos.topology.compat import review
from chaos.topology.gitinfo import git_info
from chaos.topology.lab import Lab, Source
from chaos.topology.links import resolve_links
from chaos.topology.nodes import Nodes
from chaos.topology.text import read_config


def load_file(path: Path, environ: Mapping[str, str] | None = None) -> Lab:
    """Read and resolve a topology file.

    Args:
        path: A file of any name.
        environ: The environment that `$NAME` is looked up in; the process's own by default.

    Raises:
        SpecError: Containerlab would refuse the file as well; with file, line and field.
    """
    file = Path(os.path.abspath(path))
    try:
        return _Loader(file, dict(os.environ if environ is None else environ)).lab()
    except RecursionError:
        raise SpecError("found values nested too deeply", file=str(file)) from None


@dataclass(slots=True)
class _Loader:
    file: Path
    environ: Mapping[str, str]

    def lab(self) -> Lab:
        config, source = read_config(self.file, self.environ)
        self._refuse_nothings(config, source)
        warnings: list[str] = []
        mgmt = _mgmt(config.get("mgmt") or {}, warnings)
        name = self._name(config["name"], warnings)
        prefix = "clab" if config.get("prefix") is None else config["prefix"]
        base = self.environ.get("CLAB_LABDIR_BASE") or str(self.file.parent)
        labdir = os.path.normpath(os.path.join(base, f"clab-{name}"))
        lab = Lab(name, prefix, source, labdir, mgmt, {}, ())
        topology = config["topology"]
        nodes = Nodes(lab, topology, self.environ, git_info(lab.folder)).all()
        links = resolve_links(topology.get("links") or [], nodes, source)
        lab = replace(lab, nodes=nodes, links=links)
        lab = replace(lab, checks=deploy_checks(lab))
        ignored, refusals = review(lab, config)
        return replace(lab, warnings=(*warnings, *ignored), refusals=refusals)

    def _refuse_nothings(self, config: dict[str, Any], source: Source) -> None:
        """What makes Containerlab crash or find no lab at all."""
        for path, wanted in (
            (("topology",), "nodes under it"),
            (("mgmt",), "a map under it, or no such key"),
            (("topology", "defaults"), "fields under it, or no such key"),
        ):
            inside: Any = config
            for part in path:
                inside = inside.get(part, {}) if isinstance(inside, dict) else {}
            if inside is None:
                source.refuse(path, f"found nothing, wanted {wanted}")
        if not config.get("name"):
            source.refuse(("name",), "found no name, wanted a lab name")
        if not (config.get("topology") or {}).get("nodes"):
            source.refuse(("topology", "nodes"), "found no nodes, wanted at least one")

    def _name(self, name: str, warnings: list[str]) -> str:
        if "__gitBranch__" not in name and "__gitHash__" not in name:
            return name
        branch, commit = git_info(self.file.parent)
        if (branch, commit) == ("none", "none"):
            warnings.append(
                "topology name uses git variables, but no Git repository found at "
                f"\"{self.file.parent}\" - variables will be replaced with 'none'"
            )
        branch = branch.replace("/", "-")
        return name.replace("__gitBranch__", branch).replace("__gitHash__", commit)


def _mgmt(raw: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    found = {key: value for key, value in raw.items() if value not in (None, "", 0, {})}
    for family in ("ipv4", "ipv6"):
        old = found.pop(f"{family}_subnet", None)
        if old and not found.get(f"{family}-subnet"):
            warnings.append(
                f'Attribute "{family}_subnet" is deprecated and will be removed in the future. '
                f'Change it to "{family}-subnet"'
            )
            found[f"{family}-subnet"] = old
    found.setdefault("network", "clab")
    if "ipv4-subnet" not in found and "ipv6-subnet" not in found:
        found |= {"ipv4-subnet": "172.20.20.0/24", "ipv6-subnet": "3fff:172:20:20::/64"}
    found["external-access"] = raw.get("external-access") is not False
    if not found.get("skip-when-unused"):
        found.pop("skip-when-unused", None)
    return found
