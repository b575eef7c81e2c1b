"""The plugin keeps fail, inconclusive, blocked and skip apart, each in pytest's own way."""

import pytest

from chaos.experiment_python import labelled
from probes.flow import Flow
from probes.routing import Routing

SUITE = """
import pytest
from chaos.errors import (
    ApplyError, BlockedError, CapabilityError, FabricError, LeftoverError, SpecError,
)
from chaos.pytest_plugin import settle
from chaos.record import Finding, Record

def record(verdict, sentence):
    found = Finding(sentence, "o", verdict)
    return Record({"promise": "the job runs on"}, {}, 1, verdict, (found,))

def test_passes():
    settle(record("pass", "well"))

def test_fails():
    settle(record("fail", "outage_ms: expected at most 1 ms, got 9 ms"))

def test_doubts():
    settle(record("inconclusive", "the fault was in force but never acted"))

def test_is_blocked():
    raise BlockedError("calm was not calm")

def test_lacks():
    raise CapabilityError("driver x cannot y; use z")

def test_is_misspelt():
    raise SpecError("no node 'host9'", file="e.yaml", line=4)

def test_has_no_fabric():
    raise FabricError("router r1 does not answer")

def test_does_not_bite():
    raise ApplyError("nftables refused")

def test_leaves_something():
    raise LeftoverError("leaf1:eth1: still in force; cure: ip link set eth1 up")

@pytest.fixture
def lacking():
    raise CapabilityError("no nft here; apt-get install nftables")

def test_lacks_in_set_up(lacking):
    pass
"""


@pytest.fixture
def outcome(pytester):
    """The suite above, run in a process of its own: plugins do not nest."""
    pytester.makepyfile(SUITE)
    return pytester.runpytest_subprocess("-rA", "-p", "no:cacheprovider", "--junitxml=j.xml")


def test_each_ending_has_its_own_kind(outcome):
    outcome.assert_outcomes(passed=1, failed=1, errors=6, skipped=2)


def test_each_ending_says_why(outcome):
    outcome.stdout.fnmatch_lines_random(
        [
            "*outage_ms: expected at most 1 ms, got 9 ms*",
            "*INCONCLUSIVE: the job runs on*",
            "*the fault was in force but never acted*",
            "*BLOCKED: calm was not calm*",
            "*BLOCKED: e.yaml:4: no node 'host9'*",
            "*BLOCKED: router r1 does not answer*",
            "*INCONCLUSIVE: nftables refused*",
            "*STILL IN FORCE: leaf1:eth1: still in force; cure: ip link set eth1 up*",
            "*SKIPPED*driver x cannot y; use z*",
            "*SKIPPED*no nft here; apt-get install nftables*",
        ]
    )


def test_a_wrong_marker_is_a_usage_error(pytester):
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.fabric("a", "b")
        def test_it(fabric):
            pass
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    result.stdout.fnmatch_lines(["*the marker is written fabric(name): one name or file*"])
    assert result.ret != 0


def test_an_unknown_fabric_blocks_and_names_near_ones(pytester):
    pytester.makepyfile("def test_it(fabric): pass\n")
    result = pytester.runpytest_subprocess("--fabric", "clos-2x4x9", "-p", "no:cacheprovider")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*BLOCKED: fabric clos-2x4x9: *clos-2x4x8*"])


#: A fabric that is none, so that everything before it is reached without root.
STANDING = """
import pytest
from types import SimpleNamespace
from chaos import pytest_plugin, topology
from chaos.errors import CapabilityError

@pytest.fixture
def fabric(request):
    return SimpleNamespace(fabric=topology.load(request.config.getoption("--fabric") or "pair"))
"""


@pytest.fixture
def suite(pytester):
    """Run test functions on such a fabric, in a process of its own."""

    def run(text, *options):
        pytester.makeconftest(STANDING)
        pytester.makepyfile(text)
        return pytester.runpytest_subprocess("-rA", "-p", "no:cacheprovider", *options)

    return run


def test_a_shipped_experiment_on_another_fabric_names_what_it_needs(suite):
    result = suite("def test_it(trial): trial('placebo')\n", "--fabric", "pair")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(
        ["*BLOCKED: experiment placebo is written for fabric clos-2x4x8 and needs *host8*"]
    )
    result.stdout.no_fnmatch_line("*Traceback*")
    result.stdout.no_fnmatch_line("*pytest_plugin.py:*")


def test_a_trial_without_probes_is_a_sentence(suite):
    result = suite("def test_it(trial): trial(None)\n")

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*BLOCKED: trial(fault, *probe, …*, *objective, …*) expected*"])


def test_a_probe_that_cannot_work_here_is_a_skip_before_anything_starts(suite):
    """As `chaos.run` raises it when a probe says that it is not available."""
    result = suite(
        """
        import pytest
        from chaos import pytest_plugin
        from chaos.errors import CapabilityError
        from probes import collective

        def test_it(trial, monkeypatch):
            async def run(*_):
                collective.Collective(("host1", "host2")).available()
            monkeypatch.setattr(collective, "find_spec", lambda name: None)
            monkeypatch.setattr(pytest_plugin, "_run", run)
            trial("placebo")
        """
    )

    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines(["*SKIPPED*collective needs torch: pip install railbreak?job?*"])


@pytest.mark.parametrize("trials", ["0", "-1"])
def test_no_trials_is_a_usage_error(suite, trials):
    result = suite("def test_it(): pass\n", "--trials", trials)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--trials: 1 or more expected, got {trials}*"])


@pytest.mark.parametrize(
    ("given", "said"),
    [("0.7", "a share expected, 0.7 % or 70 %, got '0.7' without a unit"), ("900%", "0 to 100 %")],
)
def test_a_load_is_a_share_with_its_unit(suite, given, said):
    result = suite("def test_it(): pass\n", "--calm-load", given)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*--calm-load: *{said}*"])
    right = "def test_it(request): assert request.config.getoption('--calm-load') == 70\n"
    suite(right, "--calm-load", "70%").assert_outcomes(passed=1)


def test_probes_of_one_name_are_all_kept():
    flows = [Flow("h1", "h2"), Flow("h2", "h1"), Flow("h1", "h3")]
    found = labelled((flows[0], Routing(), *flows[1:]))

    assert list(found) == ["flow", "routing", "flow/b", "flow/c"]
    assert [found[label] for label in ("flow", "flow/b", "flow/c")] == flows
    assert len(labelled([flows[0]] * 40)) == 40
