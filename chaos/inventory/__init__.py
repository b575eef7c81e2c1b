"""Inventories of machines, and the cables between them → `Fabric`; pure, but for reading files.

    Ansible, Nornir, topology-data.json ──▶ hosts ─┐
    twin *.clab.yml, table, LLDP ──▶ cables ───────┴─▶ Inventory ──▶ Fabric

Sources are merged, each cable knows where it was read, and two sources that contradict each other
are refused with both places. No secret is read. `compare` holds declared cables against LLDP.
"""

from __future__ import annotations

from chaos.inventory.evidence import Evidence, gather
from chaos.inventory.fabric import of_fabric, to_fabric
from chaos.inventory.links import read_links, read_names
from chaos.inventory.lldp import Neighbour, read_heard, read_neighbours
from chaos.inventory.loader import FORMS, load
from chaos.inventory.merge import merge
from chaos.inventory.model import Cable, Host, Inventory, Source
from chaos.inventory.outcome import Comparison, Difference
from chaos.inventory.record import from_json, to_json
from chaos.inventory.verify import MANAGEMENT, compare, verify

__all__ = [
    "FORMS",
    "MANAGEMENT",
    "Cable",
    "Comparison",
    "Difference",
    "Evidence",
    "Host",
    "Inventory",
    "Neighbour",
    "Source",
    "compare",
    "from_json",
    "gather",
    "load",
    "merge",
    "of_fabric",
    "read_heard",
    "read_links",
    "read_names",
    "read_neighbours",
    "to_fabric",
    "to_json",
    "verify",
]
