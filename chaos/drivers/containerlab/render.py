"""The topology file as it is deployed: a copy of what the user wrote, changed as little as can be.

Templates and variables are already filled in, as Containerlab would, so that the copy means the
same wherever it lies; relative paths are made absolute. Scalars keep the text they were written
with: a loader that types them would turn `2211:22` into a number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from chaos.errors import SpecError
from chaos.topology.envsubst import substitute
from chaos.topology.lab import WITHOUT_CONTAINER, Lab
from chaos.topology.text import expanded

#: What a node needs where it may not be privileged: links, routes, and FRR.
CAPS = ("NET_ADMIN", "NET_RAW", "SYS_ADMIN")
_MAP, _SEQ, _STR = (f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str"))
_BOOL = "tag:yaml.org,2002:bool"
_PATHS = ("startup-config", "license", "env-files")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to differ from the file.

    Attributes:
        name: Name of the lab; the file's own where it is empty.
        stitch: Make links between two containers `veth-stitch`.
        no_network: Where no node is on the management network, do not make one.
        unprivileged: Make every node unprivileged, with the capabilities it needs.
        images: What to use instead of an image.
    """

    name: str = ""
    stitch: bool = True
    no_network: bool = False
    unprivileged: bool = False
    images: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The copy.

    Attributes:
        text: What to write.
        notes: One sentence per thing that differs from the file.
    """

    text: str
    notes: tuple[str, ...]


def render(lab: Lab, wanted: Wanted, environ: Mapping[str, str] = os.environ) -> Rendered:
    """Make the copy of a lab's file; reads the file, writes nothing.

    Raises:
        SpecError: the file cannot be read.
    """
    text = expanded(lab.file, environ)
    root = next(yaml.compose_all(text, Loader=yaml.SafeLoader), None)  # the first document counts
    if not isinstance(root, yaml.MappingNode):
        raise SpecError("found an empty file, wanted name and topology", file=str(lab.file))
    copy = _Copy(lab, root)
    notes: list[str] = []
    if wanted.name and wanted.name != lab.name:
        _put(root, "name", _text(wanted.name))
        notes.append(f"the lab is named {wanted.name}, not {lab.name}")
    copy.absolute()
    if wanted.stitch and (count := copy.stitch()):
        notes.append(
            f"{count} links between nodes are deployed as veth-stitch, so that they can lose their "
            "carrier (RAILBREAK_CLAB_LINKS=plain keeps them as written)"
        )
    if wanted.no_network and copy.without_network():
        notes.append("no node is on the management network, so none is made")
    if wanted.unprivileged and copy.unprivileged():
        notes.append(
            "this machine refuses privileged containers: nodes get privileged: false and "
            f"cap-add {', '.join(CAPS)}"
        )
    for image, instead in wanted.images.items():
        if copy.image(image, instead):
            notes.append(f"image {image} is not on this machine; {instead} is used in its place")
    text = yaml.serialize(root, width=10_000, allow_unicode=True)
    return Rendered(escaped(text, environ), tuple(notes))


def escaped(text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Text that means itself once templates and variables have been filled in again.

    Examples:
        >>> escaped("a: $HOME, 5 $, {{x}}")
        'a: $$HOME, 5 $, {{"{{"}}x}}'
    """
    kept = re.sub(r"\$(?=[A-Za-z_{$])", "$$", text).replace("{{", '{{"{{"}}')
    if substitute(kept.replace('{{"{{"}}', "{{"), environ, file="") != text:
        return text
    return kept


@dataclass(slots=True)
class _Copy:
    lab: Lab
    root: yaml.MappingNode
    done: set[int] = field(default_factory=set)

    def absolute(self) -> None:
        """Paths that start at the file's folder."""
        for level in self._levels():
            binds = _get(level, "binds")
            for one in binds.value if isinstance(binds, yaml.SequenceNode) else ():
                source, colon, rest = one.value.partition(":")
                self._settle(
                    one, lambda path, rest=rest, colon=colon: f"{path}{colon}{rest}", source
                )
            for key in _PATHS:
                found = _get(level, key)
                many = found.value if isinstance(found, yaml.SequenceNode) else [found]
                for one in many:
                    if isinstance(one, yaml.ScalarNode) and (self.lab.folder / one.value).is_file():
                        self._settle(one, str, one.value)
        authority = _get(_get(self.root, "settings"), "certificate-authority")
        for key in ("cert", "key"):
            one = _get(authority, key)
            if isinstance(one, yaml.ScalarNode):
                self._settle(one, str, one.value)

    def _settle(self, one: yaml.ScalarNode, whole: Any, path: str) -> None:
        if id(one) in self.done or not path or path[0] in "/~" or path.startswith("__clabDir__"):
            return
        self.done.add(id(one))
        one.value = whole(os.path.normpath(self.lab.folder / path))

    def stitch(self) -> int:
        """Links between two containers become stitched ones; how many."""
        links = _get(_get(self.root, "topology"), "links")
        nodes = links.value if isinstance(links, yaml.SequenceNode) else []
        count = 0
        for node, link in zip(nodes, self.lab.links, strict=True):
            if link.written not in ("brief", "veth") or len(link.endpoints) != 2:
                continue
            kinds = [
                self.lab.nodes[e.node].kind for e in link.endpoints if e.node in self.lab.nodes
            ]
            if len(kinds) < 2 or set(kinds) & WITHOUT_CONTAINER:
                continue
            if id(node) not in self.done:
                self.done.add(id(node))
                if link.written == "brief":
                    ends = []
                    for end in link.endpoints:
                        words = {"node": end.node, "interface": end.interface, "mac": end.mac}
                        words |= {"ipv4": end.ipv4, "ipv6": end.ipv6}
                        ends.append(_map({k: _text(v) for k, v in words.items() if v}))
                    _put(node, "endpoints", yaml.SequenceNode(_SEQ, ends))
                    for key in ("ipv4", "ipv6"):
                        _drop(node, key)
                _put(node, "type", _text("veth-stitch"))
            count += 1
        return count

    def without_network(self) -> bool:
        """No management network is made where nobody is on it; whether that is so."""
        kept = [node for node in self.lab.nodes.values() if node.kind not in WITHOUT_CONTAINER]
        if any(str(node.fields.get("network-mode") or "") != "none" for node in kept):
            return False
        if any(end.node == "mgmt-net" for link in self.lab.links for end in link.endpoints):
            return False
        held = _get(self.root, "mgmt")
        if not isinstance(held, yaml.MappingNode):
            held = _map({})
            _put(self.root, "mgmt", held)
        _put(held, "skip-when-unused", yaml.ScalarNode(_BOOL, "true"))
        return True

    def unprivileged(self) -> bool:
        """No node is privileged; whether any was."""
        if not any(node.fields.get("privileged", True) for node in self.lab.nodes.values()):
            return False
        topology = _get(self.root, "topology")
        for level in self._levels():
            if _get(level, "privileged") is not None:
                _put(level, "privileged", yaml.ScalarNode(_BOOL, "false"))
        defaults = _get(topology, "defaults")
        if not isinstance(defaults, yaml.MappingNode):
            defaults = _map({})
            _put(topology, "defaults", defaults)
        _put(defaults, "privileged", yaml.ScalarNode(_BOOL, "false"))
        held = _get(defaults, "cap-add")
        caps = [one.value for one in held.value] if isinstance(held, yaml.SequenceNode) else []
        caps += [cap for cap in CAPS if cap not in caps]
        _put(defaults, "cap-add", yaml.SequenceNode(_SEQ, [_text(cap) for cap in caps]))
        return True

    def image(self, name: str, instead: str) -> bool:
        """Another image wherever one is named; whether it is."""
        found = False
        for level in self._levels():
            one = _get(level, "image")
            if isinstance(one, yaml.ScalarNode) and one.value == name:
                _put(level, "image", _text(instead))
                found = True
        return found

    def _levels(self) -> Iterator[yaml.MappingNode]:
        """Every map in the file that holds fields of nodes."""
        topology = _get(self.root, "topology")
        defaults = _get(topology, "defaults")
        if isinstance(defaults, yaml.MappingNode):
            yield defaults
        for part in ("kinds", "groups", "nodes"):
            held = _get(topology, part)
            for _, level in held.value if isinstance(held, yaml.MappingNode) else ():
                if isinstance(level, yaml.MappingNode):
                    yield level


def _get(level: Any, key: str) -> Any:
    """The value of a key, also where it comes from a merged map; None for none."""
    if not isinstance(level, yaml.MappingNode):
        return None
    for name, value in level.value:
        if name.value == key:
            return value
    for name, value in level.value:
        if name.value == "<<":
            for one in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if (found := _get(one, key)) is not None:
                    return found
    return None


def _put(level: yaml.MappingNode, key: str, value: yaml.Node) -> None:
    for at, (name, _) in enumerate(level.value):
        if name.value == key:
            level.value[at] = (name, value)
            return
    level.value.append((_text(key), value))


def _drop(level: yaml.MappingNode, key: str) -> None:
    level.value = [(name, value) for name, value in level.value if name.value != key]


def _text(value: str) -> yaml.ScalarNode:
    return yaml.ScalarNode(_STR, value)


def _map(values: Mapping[str, yaml.Node]) -> yaml.MappingNode:
    return yaml.MappingNode(_MAP, [(_text(key), value) for key, value in values.items()])


def copy_name(lab: Lab) -> str:
    """File name of the copy."""
    return Path(lab.file).name
