"""Variables of a host → `Host`: what railbreak uses of them, checked; secrets stay unread."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaos.errors import SpecError, near
from chaos.inventory.model import Host, Source
from chaos.inventory.patterns import expand
from chaos.inventory.roles import role_of
from chaos.inventory.tree import VAULT, shown

#: The host variable that holds our own settings, and what may be in it.
OURS = "railbreak"
FIELDS = ("role", "ports", "rail", "rails", "pfc", "hw-host", "torch")

#: Variables that are used, per field; the last that is set wins, as in Ansible's ssh connection.
ANSIBLE: Mapping[str, tuple[str, ...]] = {
    "address": ("ansible_host", "ansible_ssh_host"),
    "port": ("ansible_port", "ansible_ssh_port"),
    "user": ("ansible_user", "ansible_ssh_user"),
    "key_file": ("ansible_private_key_file", "ansible_ssh_private_key_file"),
    "become": ("ansible_become",),
    "become_user": ("ansible_become_user",),
    "become_method": ("ansible_become_method",),
    "platform": ("ansible_network_os",),
    "connection": ("ansible_connection",),
    "python": ("ansible_python_interpreter",),
}
_ARGS = ("ansible_ssh_common_args", "ansible_ssh_extra_args")
USED = frozenset(name for names in ANSIBLE.values() for name in names) | {*_ARGS, OURS}

_SECRET = re.compile(r"pass(word|wd|phrase)?$|_pass_|secret|token|private_key$|api_?key|community")
_NO_KEY = re.compile(r"ansible_.*private_key_file$")


def is_secret(name: str) -> bool:
    """Whether a variable of that name is taken for a secret.

    Examples:
        >>> [is_secret(one) for one in ("ansible_password", "ansible_become_pass", "passive")]
        [True, True, False]
    """
    return bool(_SECRET.search(name.lower())) and not _NO_KEY.match(name.lower())


@dataclass(frozen=True, slots=True)
class Raw:
    """A host as a reader found it: every variable that applies to it.

    Attributes:
        name: Inventory name.
        vars: Its variables, inherited ones included.
        groups: Every group, parents included, nearest first.
        source: Where it is named.
        places: Where a variable was given, as far as known.
    """

    name: str
    vars: Mapping[str, Any]
    groups: tuple[str, ...]
    source: Source
    places: Mapping[str, Source] = field(default_factory=dict)

    def wrong(self, message: str, name: str, inner: str = "") -> SpecError:
        """The refusal of one variable of this host."""
        place = self.places.get(name, self.source)
        return place.wrong(message, f"{self.name}.{name}{'.' if inner else ''}{inner}")


def host_of(raw: Raw, roles: Mapping[str, str] | None = None) -> Host:
    """The host of its variables, as Ansible names them.

    Raises:
        SpecError: a variable that is used is no text, no port, a template, …
    """
    text: dict[str, str] = {}
    for wanted, names in ANSIBLE.items():
        if wanted in ("port", "become"):
            continue
        for name in names:
            if name in raw.vars:
                text[wanted] = text_of(raw, name, raw.vars[name])
                if wanted == "address" and not text[wanted]:
                    raise raw.wrong("found no address, wanted a name or address", name)
    if any(mark in text.get("address", "") for mark in (" ", "/", "@")):
        name = next(one for one in ANSIBLE["address"][::-1] if one in raw.vars)
        message = f"found {text['address']!r}, wanted a name or address alone"
        raise raw.wrong(message, name)
    become = next((raw.vars[one] for one in ANSIBLE["become"] if one in raw.vars), False)
    own = ours(raw, raw.vars.get(OURS))
    return Host(
        name=raw.name,
        node=raw.name,
        address=text.pop("address", raw.name),
        port=_port(raw),
        ssh_args=_args(raw),
        become=truth(raw, "ansible_become", become),
        groups=raw.groups,
        role=own.role or _role(raw, text.get("platform", ""), roles),
        hardware=own.hardware,
        torch=own.torch,
        ports=own.ports,
        rail=own.rail,
        rails=own.rails,
        pfc=own.pfc,
        vars=kept(raw.vars),
        secrets=tuple(sorted(name for name in raw.vars if is_secret(name))),
        source=raw.source,
        **text,
    )


def kept(values: Mapping[str, Any]) -> dict[str, Any]:
    """Variables that are not used by a field of `Host`, without secrets at any depth."""
    return {key: _clean(one) for key, one in values.items() if key not in USED and _fit(key, one)}


def _fit(key: str, value: Any) -> bool:
    return not is_secret(key) and value is not VAULT


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _clean(one) for key, one in value.items() if _fit(key, one)}
    return [_clean(one) for one in value if one is not VAULT] if isinstance(value, list) else value


def text_of(raw: Raw, name: str, value: Any, inner: str = "") -> str:
    """A variable that must be text; a whole number is taken as written."""
    if value is None:
        return ""
    if value is VAULT:
        raise raw.wrong("found an encrypted value; give it in the open, or leave it out", name)
    if isinstance(value, bool | float | list | dict):
        quoted = "; put it in quotes" if isinstance(value, bool | float) else ""
        raise raw.wrong(f"found {shown(value)}, wanted text{quoted}", name, inner)
    found = str(value)
    if "{{" in found or "{%" in found:
        raise raw.wrong(
            f"found the template {found!r}, which is not evaluated; write the value out",
            name,
            inner,
        )
    return found.strip()


def truth(raw: Raw, name: str, value: Any) -> bool:
    """A variable that must be true or false."""
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False, "": False}
    found = text_of(raw, name, str(value).lower() if isinstance(value, bool) else value).lower()
    if found not in words:
        raise raw.wrong(f"found {shown(value)}, wanted true or false", name)
    return words[found]


def port_of(raw: Raw, name: str, value: Any) -> int:
    """A variable that must be a TCP port; nothing is 0."""
    found = text_of(raw, name, value)
    if not found:
        return 0
    if not re.fullmatch(r"[0-9]{1,5}", found) or not 1 <= int(found) <= 65535:
        raise raw.wrong(f"found {shown(value)}, wanted a port of 1 to 65535", name)
    return int(found)


def _port(raw: Raw) -> int:
    name = next((one for one in ANSIBLE["port"][::-1] if one in raw.vars), "")
    return port_of(raw, name, raw.vars[name]) if name else 0


def _args(raw: Raw) -> tuple[str, ...]:
    found: list[str] = []
    for name in _ARGS:
        text = text_of(raw, name, raw.vars.get(name))
        try:
            found += shlex.split(text)
        except ValueError as error:
            message = f"found {text!r}, wanted words of ssh ({str(error).lower()})"
            raise raw.wrong(message, name) from None
    return tuple(found)


def _role(raw: Raw, platform: str, roles: Mapping[str, str] | None) -> str:
    try:
        return role_of(raw.name, raw.groups, platform, roles)
    except SpecError as error:
        raise raw.source.wrong(error.reason, raw.name) from None


@dataclass(frozen=True, slots=True)
class Ours:
    """What stands in the variable `railbreak`."""

    role: str = ""
    ports: Mapping[str, str] = field(default_factory=dict)
    rail: str = ""
    rails: Mapping[str, str] = field(default_factory=dict)
    hardware: str = ""
    torch: str = ""
    pfc: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def ours(raw: Raw, value: Any) -> Ours:
    """Our own settings of a host.

    Raises:
        SpecError: an unknown field, or one of the wrong kind.
    """
    if value is None:
        return Ours()
    if not isinstance(value, dict):
        wanted = f"wanted a mapping of {', '.join(FIELDS)}"
        raise raw.wrong(f"found {shown(value)}, {wanted}", OURS)
    for key in value:
        if key not in FIELDS:
            raise raw.wrong(f"found the unknown field {key!r}; {near(key, FIELDS)}", OURS, key)
    texts = ("role", "rail", "hw-host", "torch")
    one = {key: text_of(raw, OURS, value.get(key), key) for key in texts}
    ports = _pairs(raw, value.get("ports"), "ports", expand)
    own = list(ports.values())
    twice = next((name for name in own if own.count(name) > 1), None)
    if twice is not None:
        message = f"found the interface {twice!r} for two ports, wanted one each"
        raise raw.wrong(message, OURS, "ports")
    rails = _pairs(raw, value.get("rails"), "rails", lambda text: (text,))
    pfc = {
        port: _priorities(raw, port, text)
        for port, text in _pairs(raw, value.get("pfc"), "pfc", lambda text: (text,)).items()
    }
    return Ours(one["role"], ports, one["rail"], rails, one["hw-host"], one["torch"], pfc)


def _priorities(raw: Raw, port: str, text: str) -> tuple[int, ...]:
    """Priorities in words: `3`, or `3 4`."""
    words = text.replace(",", " ").split()
    if not words or not all(word in "01234567" and len(word) == 1 for word in words):
        message = f"found {text!r}, wanted priorities of 0 to 7 with PFC, such as 3 4"
        raise raw.wrong(message, OURS, f"pfc.{port}")
    return tuple(sorted({int(word) for word in words}))


def _pairs(
    raw: Raw, value: Any, name: str, reach: Callable[[str], tuple[str, ...]]
) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        wanted = "wanted a mapping such as {eth1: swp1}" if name == "ports" else "wanted a mapping"
        raise raw.wrong(f"found {shown(value)}, {wanted}", OURS, name)
    found: dict[str, str] = {}
    for key, one in value.items():
        text = text_of(raw, OURS, one, f"{name}.{key}")
        if not text:
            raise raw.wrong(f"found nothing for {key}, wanted text", OURS, f"{name}.{key}")
        try:
            keys, texts = expand(key), reach(text)
        except SpecError as error:
            raise raw.wrong(error.reason, OURS, f"{name}.{key}") from None
        texts = texts * len(keys) if len(texts) == 1 and name in ("rails", "pfc") else texts
        if len(keys) != len(texts):
            message = f"found {len(keys)} ports in {key!r} and {len(texts)} in {text!r}"
            raise raw.wrong(f"{message}, wanted as many", OURS, f"{name}.{key}")
        for each in keys:
            if each in found:
                raise raw.wrong(f"found the port {each} twice", OURS, f"{name}.{key}")
        found.update(zip(keys, texts, strict=True))
    return found
