"""Ansible inventories: by `ansible-inventory --list` where it is installed, else our own reader.

The tool is the judge of every value. Where the file is plain YAML our own reader reads it too, for
the lines, and for what Ansible decides silently: one host with two addresses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from chaos.errors import SpecError
from chaos.inventory.ansible_plain import Plain, read_plain
from chaos.inventory.model import Source
from chaos.inventory.patterns import expand, split_port
from chaos.inventory.settings import Raw
from chaos.inventory.tree import Page, parse_json, shown

TOOL = "ansible-inventory"
_DEADLINE_S = 120
_QUIET = {
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_FORCE_COLOR": "0",
    "ANSIBLE_DEPRECATION_WARNINGS": "0",
    "ANSIBLE_INVENTORY_UNPARSED_FAILED": "1",
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
    "ANSIBLE_LOCALHOST_WARNING": "0",
    "ANSIBLE_INVENTORY_UNPARSED_WARNING": "1",
}


def read_ansible(path: Path, tool: str | None = None) -> tuple[list[Raw], tuple[str, ...]]:
    """Every host with the variables that apply to it, and warnings.

    Args:
        path: YAML or INI file, executable or folder.
        tool: Path of `ansible-inventory`; None looks on PATH, the empty text does without.

    Raises:
        SpecError: refused by the tool or by our reader; a form that needs the tool, without it.
    """
    found = shutil.which(TOOL) if tool is None else tool
    if not found:
        return _without_tool(path)
    plain = _plain(path)
    if plain is not None and plain.conflicts:
        raise plain.conflicts[0]
    raws, warnings = from_list(_ask(found, path), plain)
    return raws, (*warnings,)


def _without_tool(path: Path) -> tuple[list[Raw], tuple[str, ...]]:
    what = needs_tool(path)
    if what:
        cure = "install ansible-core, or give the output of ansible-inventory --list in a file"
        message = f"found {what}, which needs {TOOL}, and that is not installed; {cure}"
        raise SpecError(message, file=str(path))
    plain = read_plain(path)
    if plain.conflicts:
        raise plain.conflicts[0]
    return list(plain.hosts.values()), plain.warnings


def needs_tool(path: Path) -> str:
    """What a path is that only Ansible itself can read; empty for the plain YAML form."""
    if path.is_dir():
        return "a folder"
    if os.access(path, os.X_OK) and path.read_bytes()[:2] == b"#!":
        return "a program"
    return "" if path.suffix in (".yml", ".yaml", ".json") else "an INI inventory"


def _plain(path: Path) -> Plain | None:
    """Our own reading of a file that is plain; the tool says what is wrong with any other."""
    if needs_tool(path):
        return None
    try:
        return read_plain(path)
    except SpecError:
        return None


def _ask(tool: str, path: Path) -> tuple[Page, tuple[str, ...]]:
    argv = (tool, "-i", str(path), "--list")
    try:
        done = subprocess.run(
            argv,
            env={**os.environ, **_QUIET},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_DEADLINE_S,
            check=False,
        )
    except OSError as error:
        message = f"{tool} cannot be started: {(error.strerror or str(error)).lower()}"
        raise SpecError(message, file=str(path)) from None
    except subprocess.TimeoutExpired:
        message = f"{TOOL} gave no answer within {_DEADLINE_S} s"
        raise SpecError(message, file=str(path)) from None
    said = _sentences(done.stderr.decode(errors="replace"))
    if done.returncode:
        reason = next((one for kind, one in said if kind != "WARNING"), "no reason given")
        raise SpecError(f"{TOOL} refuses it: {reason}", file=str(path))
    told = tuple(f"{TOOL}: {one}" for kind, one in said if kind == "WARNING")
    return parse_json(done.stdout.decode(errors="replace"), str(path)), told


def _sentences(stderr: str) -> list[tuple[str, str]]:
    """What the tool says, by kind, each on one line."""
    found = re.split(r"^\[?(WARNING|ERROR|DEPRECATION WARNING)[\]!:]*:?\s", stderr, flags=re.M)
    return [
        (kind, re.sub(r"\s+", " ", text).strip().rstrip("."))
        for kind, text in zip(found[1::2], found[2::2], strict=True)
    ] or ([("ERROR", re.sub(r"\s+", " ", found[0]).strip())] if found[0].strip() else [])


def from_list(
    answer: tuple[Page, tuple[str, ...]], plain: Plain | None = None
) -> tuple[list[Raw], tuple[str, ...]]:
    """The hosts of an answer of `ansible-inventory --list`.

    Args:
        answer: The JSON, and warnings to hand on.
        plain: Our own reading of the same file, for lines.
    """
    page, warnings = answer
    if not isinstance(page.value, dict) or "_meta" not in page.value:
        raise page.wrong(f"found {shown(page.value)} without _meta, wanted ansible-inventory's")
    hostvars = page.value["_meta"].get("hostvars", {}) if page.value["_meta"] else {}
    members = {name: body for name, body in page.value.items() if name != "_meta"}
    parents: dict[str, list[str]] = {}
    direct: dict[str, list[str]] = {}
    for name, body in members.items():
        for kind, into in (("children", parents), ("hosts", direct)):
            for one in _names(page, name, body, kind):
                into.setdefault(one, []).append(name)
    mentions = _mentions(Path(page.file)) if plain is None else {}
    raws = [
        _raw(page, name, _upwards(direct.get(name, []), parents), plain, mentions)
        for name in dict.fromkeys((*hostvars, *direct))
    ]
    return raws, warnings


def _names(page: Page, group: str, body: Any, kind: str) -> list[str]:
    found = body.get(kind, []) if isinstance(body, dict) else []
    if not isinstance(found, list):
        raise page.wrong(f"found {shown(found)}, wanted a list", group, kind)
    return [str(one) for one in found]


def _upwards(groups: list[str], parents: Mapping[str, list[str]]) -> tuple[str, ...]:
    found = dict.fromkeys(groups)
    left = list(groups)
    while left:
        left = [up for one in left for up in parents.get(one, []) if up not in found]
        found |= dict.fromkeys(left)
    return tuple(name for name in found if name != "all")


def _raw(
    page: Page,
    name: str,
    groups: tuple[str, ...],
    plain: Plain | None,
    mentions: Mapping[str, int],
) -> Raw:
    values = (page.value["_meta"] or {}).get("hostvars", {}).get(name) or {}
    if plain is not None and name in plain.hosts:
        return replace(plain.hosts[name], vars=values, groups=groups)
    return Raw(name, values, groups, Source(page.file, mentions.get(name, 0)))


def _mentions(path: Path) -> dict[str, int]:
    """The first line of a text file that begins with a host's name or range, per name."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found: dict[str, int] = {}
    for at, line in enumerate(lines, 1):
        word = line.strip().partition(" ")[0].removesuffix(":").strip("'\"")
        try:
            names = expand(split_port(word)[0]) if word else ()
        except SpecError:
            names = (word,)
        for name in names:
            found.setdefault(name, at)
    return found
