"""The probe that `docs/adding-a-probe.md` shows works as it stands there."""

import doctest
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chaos.errors import SpecError
from chaos.fabric import Fabric, Node
from chaos.registry import PROBES, Probe
from chaos.timeline import Moment, Windows

GUIDE = Path(__file__).parents[2] / "docs" / "adding-a-probe.md"
WINDOWS = Windows((0, 10), Moment(10, 10), Moment(20, 20), 40)


def shown(name):
    """The Python block of the guide that begins with that file's name."""
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", GUIDE.read_text(), re.S)
    return dict(blocks)[name]


@pytest.fixture
def guided(tmp_path):
    """The guide's probe class, registered for the test's time."""
    file = tmp_path / "probe_of_the_guide.py"
    file.write_text(shown("probes/queue_length.py"))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del PROBES["queue_length"], sys.modules[file.stem]


def test_the_guides_value_is_a_probe_and_its_example_runs(guided):
    probe = guided.QueueLength("host1")
    assert isinstance(probe, Probe)
    assert PROBES["queue_length"] is guided.QueueLength
    result = doctest.DocTestRunner()
    for test in doctest.DocTestFinder().find(guided.QueueLength, globs=vars(guided)):
        result.run(test)
    assert result.summarize() == doctest.TestResults(failed=0, attempted=1)


def test_the_guides_program_says_what_the_guides_value_reads(guided, tmp_path):
    probe = guided.QueueLength("host1", step=guided.Duration(1_000_000))
    (program,) = probe.programs(Fabric("f", {"host1": Node("host1")}), {})
    file = tmp_path / "queue_length.py"
    file.write_text(shown("probes/jobs/queue_length.py"))
    setup = f'{{"config": {{"step_s": {program.config["step_s"]}}}}}\n'
    with subprocess.Popen(
        [sys.executable, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": str(GUIDE.parents[1])},
    ) as running:
        running.stdin.write(setup)
        running.stdin.flush()
        lines = [running.stdout.readline() for _ in range(4)]
        running.stdin.close()
        lines += running.stdout  # communicate() would miss lines that were read ahead
    records = [json.loads(line) for line in lines]
    assert running.returncode == 0
    assert [record["ev"] for record in records[:2]] == ["ready", "queue"]
    assert records[-1]["ev"] == "end"
    assert [record["n"] for record in records] == list(range(1, len(records) + 1))
    readings = probe.read({"looker": records})
    assert readings.trouble == ()
    now = time.monotonic_ns()
    windows = Windows((0, 1), Moment(1, 1), Moment(2, 2), now)
    (measure,) = probe.measures(readings, windows)
    assert (measure.value, measure.n) == (0.0, len(readings.series[0].values))


def test_the_guides_value_keeps_the_guides_rules(guided):
    probe = guided.QueueLength("host1")
    silent = probe.read({})
    assert silent.trouble == ("queue_length: host1 was never looked at",)
    (measure,) = probe.measures(silent, WINDOWS)
    assert (measure.value, measure.note) == (None, "no look since the fault")
    looks = [{"ev": "queue", "t": at, "n": at, "waiting": at} for at in (5, 15, 30, 50)]
    (measure,) = probe.measures(probe.read({"looker": looks}), WINDOWS)
    assert measure.value == 30
    with pytest.raises(SpecError, match="host1"):
        probe.programs(Fabric("f", {"h1": Node("h1")}), {})
