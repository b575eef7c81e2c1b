"""Branch and commit of the folder of a topology file, read from its `.git`."""

from __future__ import annotations

from pathlib import Path


def git_info(folder: Path) -> tuple[str, str]:
    """Branch and short hash; `none` where there is none. Parent folders do not count."""
    place = folder / ".git"
    try:
        if place.is_file():
            place = (folder / place.read_text().removeprefix("gitdir:").strip()).resolve()
        head = (place / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return "HEAD", head[:7] or "none"
        ref = head.removeprefix("ref: ")
        return ref.removeprefix("refs/heads/"), _hash(place, ref)[:7] or "none"
    except (OSError, UnicodeDecodeError):
        return "none", "none"


def _hash(place: Path, ref: str) -> str:
    common = place
    if (place / "commondir").is_file():
        common = (place / (place / "commondir").read_text().strip()).resolve()
    if (common / ref).is_file():
        return (common / ref).read_text().strip()
    packed = common / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {ref}")), "")
