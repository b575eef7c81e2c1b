"""The pytest plugin on real fabrics: one per worker, none left behind."""

import os

import pytest

pytestmark = pytest.mark.netns

SUITE = """
import pytest

@pytest.mark.fabric("pair")
@pytest.mark.parametrize("n", range(4))
def test_it(fabric, n):
    assert fabric.addresses()["host1"] == "10.0.1.1"
    print("instance", fabric.instance)
"""


@pytest.mark.parametrize("workers", [0, 2], ids=["alone", "two workers"])
def test_each_worker_has_a_fabric_of_its_own(pytester, monkeypatch, workers):
    """With xdist two copies of one lab run side by side; both are gone afterwards."""
    state = f"/run/railbreak-plugin-{os.getpid()}"
    monkeypatch.setenv("RAILBREAK_STATE", state)
    pytester.makepyfile(SUITE)
    result = pytester.runpytest_subprocess("-n", str(workers), "-rP", "-p", "no:cacheprovider")

    result.assert_outcomes(passed=4)
    used = {line.split()[1] for line in result.outlines if line.startswith("instance ")}
    assert used == ({"pair", "pair-2"} if workers else {"pair"})
    assert os.listdir(state) == []
    os.rmdir(state)
