"""Waiting for a condition, with a deadline and a name for what is waited for."""

import asyncio
import time

_LOOK_S = 0.005


def wait_until(condition, what, deadline_s=20.0):
    """Return what `condition()` says once that is true.

    Args:
        condition: Looked at again and again.
        what: What is waited for; or a function that says it, once it is too late.
        deadline_s: Seconds after which the test fails, naming `what`.
    """
    give_up = time.monotonic() + deadline_s
    while not (met := condition()):
        assert time.monotonic() < give_up, _late(what, deadline_s)
        time.sleep(_LOOK_S)
    return met


async def until(condition, what, deadline_s=20.0):
    """The same where others run meanwhile."""
    give_up = time.monotonic() + deadline_s
    while not (met := condition()):
        assert time.monotonic() < give_up, _late(what, deadline_s)
        await asyncio.sleep(_LOOK_S)
    return met


def _late(what, deadline_s):
    return f"waited {deadline_s:g} s for {what() if callable(what) else what}"
