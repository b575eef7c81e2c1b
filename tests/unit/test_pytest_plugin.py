"""The plugin keeps fail, inconclusive, blocked and skip apart, each in pytest's own way."""

import pytest

SUITE = """
import pytest
from chaos.errors import BlockedError, CapabilityError
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
    outcome.assert_outcomes(passed=1, failed=1, errors=2, skipped=2)


def test_each_ending_says_why(outcome):
    outcome.stdout.fnmatch_lines_random(
        [
            "*outage_ms: expected at most 1 ms, got 9 ms*",
            "*INCONCLUSIVE: the job runs on*",
            "*the fault was in force but never acted*",
            "*BLOCKED: calm was not calm*",
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
    result.stdout.fnmatch_lines(["*clos-2x4x8*"])
