"""Imports run one way: the lists of docs/whats-here.md, as a test."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WORDS = {
    "errors", "units", "fabric", "change", "changes", "timeline", "registry", "fields", "roce",
    "packets", "turns",
}  # fmt: skip
#: A room may import only from rooms above it in this list (and from its own).
LAYERS = (
    WORDS,
    {"nos"},
    {"shipped", "worded", "document", "objectives", "topology", "experiment", "experiment_schema",
     "experiment_values", "experiment_parts", "experiment_fit", "experiment_faults",
     "experiment_python", "limits", "abort", "timing", "arrivals", "trace"},
    {"inventory"},
    {"aim", "strike", "collide", "strikes", "plan", "abridged", "bisection", "toll", "sight",
     "radius", "budget"},
    {"netlink", "netns", "nft", "realtime", "saved", "saved_words", "native", "natives", "journal",
     "deadman", "tap", "nfqueue", "nflog", "packet_ways", "packet_received", "packet_worker",
     "held", "grip", "lease", "lines", "injector", "child", "proof", "hands", "snapshot",
     "recover", "quarantine", "driver", "drivers", "path", "load", "comparability"},
    {"record", "measures", "judge", "observe", "ground", "expose", "calm", "watch", "storm",
     "apart", "trial"},
    {"preflight", "describe", "run", "replay", "report", "compare", "doctor", "catalogue"},
    {"cli", "session", "pytest_plugin"},
)  # fmt: skip


def imported(path):
    """Names of our modules that a file imports, with the line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            if node.module in ("chaos", "faults", "probes", "suites"):
                for alias in node.names:
                    yield f"{node.module}.{alias.name}", node.lineno
            else:
                yield node.module, node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno


def rooms():
    for path in sorted((ROOT / "chaos").rglob("*.py")):
        parts = path.relative_to(ROOT / "chaos").with_suffix("").parts
        if parts[0] != "__init__":
            yield pytest.param(parts[0], path, id="/".join(parts))


def layer(room):
    return next((at for at, rooms in enumerate(LAYERS) if room in rooms), None)


@pytest.mark.parametrize(("room", "path"), list(rooms()))
def test_a_room_imports_only_from_above(room, path):
    mine = layer(room)
    assert mine is not None, f"{room} has no place in the list of layers"
    for module, line in imported(path):
        top, _, rest = module.partition(".")
        if top in ("faults", "probes", "suites"):
            pytest.fail(f"{path.name}:{line} imports the plugin {module}")
        if top == "chaos" and rest:
            theirs = layer(rest.split(".")[0])
            if theirs is None:
                continue  # a name of chaos/__init__.py
            assert theirs <= mine, f"{path.name}:{line} imports {module}, which is further down"


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=f"{path.parent.name}/{path.name}")
        for folder in ("faults", "probes")
        for path in sorted((ROOT / folder).glob("*.py"))
    ],
)
def test_plugins_import_only_the_words(path):
    for module, line in imported(path):
        top, _, rest = module.partition(".")
        if top == "chaos":
            assert rest.split(".")[0] in WORDS, f"{path.name}:{line} imports {module}"
        assert top not in ("torch", "pyroute2", "asyncio", "subprocess"), f"{path.name}:{line}"


def test_the_check_above_can_fail(tmp_path):
    """A plugin that acts is caught."""
    bad = tmp_path / "bad.py"
    bad.write_text("from chaos.hands import Hands\n")

    with pytest.raises(AssertionError, match="imports chaos"):
        test_plugins_import_only_the_words(bad)
