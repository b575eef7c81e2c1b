"""From a path to the decoded file: template, environment, YAML, schema, in Containerlab's order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaos.errors import SpecError
from chaos.topology.decode import Decoder
from chaos.topology.envsubst import substitute
from chaos.topology.fields import CONFIG
from chaos.topology.goeval import render
from chaos.topology.lab import Source
from chaos.topology.schema import Free
from chaos.topology.yamltree import compose

_LARGEST = 16_000_000


def read_config(path: Path, environ: Mapping[str, str]) -> tuple[dict[str, Any], Source]:
    """The decoded file and where its fields stand.

    Raises:
        SpecError: not readable, or something that Containerlab would refuse too.
    """
    rendered = "{{" in read_text(path)
    tree = compose(expanded(path, environ), file=str(path))
    decoder = Decoder(str(path))
    config = decoder.decode(tree, CONFIG, ()) if tree is not None else None
    decoder.finish()
    source = Source(str(path), decoder.lines, rendered)
    if not isinstance(config, dict):
        raise SpecError("found an empty file, wanted name and topology", file=str(path))
    return config, source


def expanded(path: Path, environ: Mapping[str, str]) -> str:
    """A file's text with its template and variables filled in.

    Raises:
        SpecError: not readable, or something that Containerlab would refuse too.
    """
    text = read_text(path)
    if "{{" in text:
        text = render(text, _variables(path), name=str(path), others=_sub_templates(path))
    return substitute(text, environ, file=str(path))


def read_text(path: Path) -> str:
    """A file's text; line ends stay as they are.

    Raises:
        SpecError: missing, a folder, not UTF-8, or too large.
    """
    try:
        raw = path.read_bytes() if path.stat().st_size <= _LARGEST else None
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise SpecError(f"cannot be read: {said}", file=str(path)) from None
    if raw is None:
        raise SpecError(f"found more than {_LARGEST} bytes, wanted a topology", file=str(path))
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"found the byte 0x{raw[error.start]:02x}, wanted text in UTF-8"
        raise SpecError(message, file=str(path), line=line) from None


def _variables(path: Path) -> Any:
    """Variables from `<file without its last extension>_vars.*`, merged in name order."""
    stem = path.name.removesuffix(path.suffix)
    found = [other for other in path.parent.glob(f"{_literal(stem)}_vars.*")]
    merged: Any = None
    for other in sorted(found, key=lambda file: file.name):
        if other.suffix in (".yaml", ".yml", ".json"):
            merged = _merge(merged if merged is not None else {}, _free(other))
    return merged


def _literal(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _free(path: Path) -> dict[str, Any]:
    decoder = Decoder(str(path))
    tree = compose(read_text(path), file=str(path))
    value = decoder.decode(tree, Free(), ()) if tree is not None else None
    decoder.finish()
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise SpecError("found something else, wanted a map of template variables", file=str(path))
    return value


def _merge(below: Any, above: Any) -> Any:
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    shared = {key: _merge(below[key], above[key]) for key in above if key in below}
    return {**below, **above, **shared}


def _sub_templates(path: Path) -> dict[str, str]:
    folder = path.parent / "clab_templates"
    return {other.name: read_text(other) for other in sorted(folder.glob("*.gotmpl"))}
