"""An inventory as JSON and back; what is written can be read as an inventory again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from chaos.fabric import Port
from chaos.inventory.model import NOWHERE, Cable, Host, Inventory, Source
from chaos.inventory.tree import Page, shown

KEY = "railbreak-inventory"
VERSION = 1


def to_json(inventory: Inventory) -> dict[str, Any]:
    """Plain data; without secrets, as the inventory has none."""
    return {
        KEY: VERSION,
        "name": inventory.name,
        "source": inventory.source,
        "hosts": {name: asdict(host) for name, host in inventory.hosts.items()},
        "cables": [asdict(cable) for cable in inventory.cables],
        "warnings": list(inventory.warnings),
    }


def from_json(page: Page) -> Inventory:
    """The inventory that `to_json` wrote.

    Raises:
        SpecError: another version, or a part that is missing or of the wrong kind.
    """
    body = page.mapping()
    if body.get(KEY) != VERSION:
        message = f"found version {shown(body.get(KEY))}, wanted {VERSION}"
        raise page.wrong(f"{message}; write it again", KEY)
    hosts = {name: _host(page, name) for name in page.mapping("hosts")}
    cables = tuple(_cable(page, at) for at in range(len(body.get("cables") or [])))
    texts = {key: str(body.get(key) or "") for key in ("name", "source")}
    told = tuple(str(one) for one in body.get("warnings") or [])
    return Inventory(texts["name"], hosts, cables, told, texts["source"])


def _known(page: Page, kind: type[Host] | type[Cable], *at: str | int) -> dict[str, Any]:
    body = dict(page.mapping(*at))
    names = {item.name for item in fields(kind)}
    for key in body:
        if key not in names:
            raise page.wrong(f"found the unknown field {key!r}, wanted those of to_json", *at, key)
    return {key: tuple(one) if isinstance(one, list) else one for key, one in body.items()}


def _host(page: Page, name: str) -> Host:
    body = _known(page, Host, "hosts", name)
    if not isinstance(body.get("name"), str):
        raise page.wrong("found no name", "hosts", name)
    return Host(**{**body, "source": _source(body.get("source"))})


def _cable(page: Page, at: int) -> Cable:
    body = _known(page, Cable, "cables", at)
    for end in ("a", "b"):
        if not isinstance(body.get(end), dict) or {*body[end]} != {"node", "name"}:
            raise page.wrong(f"found {shown(body.get(end))}, wanted node and name", "cables", at)
    sources = tuple(_source(one) for one in body.get("sources") or ())
    return Cable(**{**body, "a": Port(**body["a"]), "b": Port(**body["b"]), "sources": sources})


def _source(body: Any) -> Source:
    if not isinstance(body, Mapping):
        return NOWHERE
    return Source(str(body.get("file") or ""), int(body.get("line") or 0))
