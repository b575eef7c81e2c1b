"""Words of this package: the resolved lab, as Containerlab sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from chaos.errors import SpecError
from chaos.topology.schema import Path as FieldPath
from chaos.topology.schema import dotted

#: kinds of Containerlab 0.79, and `frr` of 0.80
KINDS = frozenset(
    """6wind_vsr arista_ceos arista_veos arrcus_arcos aruba_aoscx bridge c8000 ceos
    checkpoint_cloudguard ciena_saos cisco_asav cisco_c8000 cisco_c8000v cisco_cat9kv
    cisco_csr1000v cisco_ftdv cisco_iol cisco_n9kv cisco_sdwan cisco_vios cisco_xrd
    cisco_xrd_vrouter cisco_xrv cisco_xrv9k cjunosevolved crpd cumulus_cvx cvx dell_ftosv
    dell_sonic ext-container f5_bigip-ve fdio_vpp fortinet_fortigate freebsd frr generic_vm host
    huawei_vrp ipinfusion_ocnos juniper_cjunosevolved juniper_crpd juniper_csrx
    juniper_vjunosevolved juniper_vjunosrouter juniper_vjunosswitch juniper_vmx juniper_vqfx
    juniper_vsrx k8s-kind keysight_ixia-c-one linux mikrotik_ros nokia_srlinux nokia_sros
    nokia_srsim nvidia_cumulusvx openbsd openwrt ovs-bridge paloalto_panos plvision_sonic rare
    sonic-vm sonic-vs spirent_stc srl veesix_osvbng vr-aoscx vr-arista_veos vr-aruba_aoscx
    vr-ciena_saos vr-cisco_csr1000v vr-cisco_n9kv vr-cisco_xrv vr-cisco_xrv9k vr-csr vr-dell_ftosv
    vr-ftosv vr-juniper_vmx vr-juniper_vqfx vr-juniper_vsrx vr-mikrotik_ros vr-n9kv vr-nokia_sros
    vr-paloalto_panos vr-pan vr-ros vr-sros vr-veos vr-vmx vr-vqfx vr-vsrx vr-xrv vr-xrv9k
    vyosnetworks_vyos xrd""".split()  # noqa: SIM905 - a list of 85 lines says no more
)
#: kinds that are no container of their own
WITHOUT_CONTAINER = frozenset({"bridge", "ovs-bridge", "host", "ext-container"})
DEFAULT_MTU = 9500


@dataclass(frozen=True, slots=True)
class Source:
    """Where the lab was read from, and the line of every field in it.

    Attributes:
        file: The topology file.
        lines: Line per field.
        rendered: Whether the file is a template, so that lines count in its rendered text.
    """

    file: str
    lines: Mapping[FieldPath, int]
    rendered: bool = False

    def error(self, path: FieldPath, message: str) -> SpecError:
        """A refusal at a field, or at the nearest field around it that has a line."""
        at = path
        while at and at not in self.lines:
            at = at[:-1]
        if self.rendered:
            message += " (line of the rendered template)"
        return SpecError(message, file=self.file, line=self.lines.get(at), field=dotted(path))

    def refuse(self, path: FieldPath, message: str) -> NoReturn:
        """Raise `error`."""
        raise self.error(path, message)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a link; `host` and `mgmt-net` stand for the machine and its bridge."""

    node: str
    interface: str
    mac: str = ""
    ipv4: str = ""
    ipv6: str = ""
    vars: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.node}:{self.interface}"


@dataclass(frozen=True, slots=True)
class LabLink:
    """A link.

    Attributes:
        index: Position in the file.
        written: How the file calls it (`brief`, `veth`, `host`, …; a brief host link is `host`).
        type: What it becomes (`veth`, `veth-stitch`, `macvlan`, `dummy`, …).
        endpoints: Two, except for dummies and odd extended veths.
        mtu: Bytes; 0 where the kernel or the parent decides.
        vars: Free values.
        labels: Labels.
    """

    index: int
    written: str
    type: str
    endpoints: tuple[Endpoint, ...]
    mtu: int = DEFAULT_MTU
    vars: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> FieldPath:
        """Its field in the file."""
        return ("topology", "links", self.index)


@dataclass(frozen=True, slots=True)
class LabNode:
    """A node with everything it inherits.

    Attributes:
        name: Short name.
        longname: Name of the container.
        kind: Lower case.
        group: Free text.
        index: Position among the sorted names.
        labdir: Folder of the node's generated files.
        fields: Resolved fields under the names that the file uses. Magic variables are replaced
            where Containerlab replaces them; `binds` as written, `binds-resolved` with paths.
        explicit: Names of the fields that the file sets for it at any level.
        paths: Where a field of it may stand in the file, the most specific first.
    """

    name: str
    longname: str
    kind: str
    group: str
    index: int
    labdir: str
    fields: Mapping[str, Any]
    explicit: frozenset[str]
    paths: tuple[FieldPath, ...]

    def where(self, name: str, lines: Mapping[FieldPath, int]) -> FieldPath:
        """The field in the file that gave `name` to this node."""
        for path in self.paths:
            if (*path, name) in lines:
                return (*path, name)
        return self.paths[0]


@dataclass(frozen=True, slots=True)
class Check:
    """Something that Containerlab finds only when it deploys.

    Attributes:
        name: `endpoint-uniqueness`, `interface-name`, `container-name`, `image`, …
        error: The sentence.
    """

    name: str
    error: SpecError


@dataclass(frozen=True, slots=True)
class Lab:
    """A topology file, resolved.

    Attributes:
        name: Lab name.
        prefix: Name prefix (`clab` when absent).
        source: File and lines.
        labdir: Folder that Containerlab would write to.
        mgmt: Management network.
        nodes: In file order.
        links: In file order.
        warnings: Sentences: first what Containerlab warns of, then what the embedded fabric
            leaves out.
        refusals: What the embedded fabric cannot do; empty means that it can bring the lab up.
        checks: What Containerlab would refuse at deploy.
    """

    name: str
    prefix: str
    source: Source
    labdir: str
    mgmt: Mapping[str, Any]
    nodes: Mapping[str, LabNode]
    links: tuple[LabLink, ...]
    warnings: tuple[str, ...] = ()
    refusals: tuple[SpecError, ...] = ()
    checks: tuple[Check, ...] = ()

    @property
    def file(self) -> Path:
        """The topology file."""
        return Path(self.source.file)

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from."""
        return self.file.parent
