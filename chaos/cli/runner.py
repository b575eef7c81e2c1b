"""Runs asynchronous work under signals: the first one unwinds it, further ones are told to wait."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WAIT = b"\nstill taking back what was broken; please wait\n"


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end; its result.

    SIGINT, SIGTERM or SIGHUP cancel it once, so that every `finally` heals; a second signal never
    stops the healing.

    Raises:
        KeyboardInterrupt: a signal ended it; what it had broken was taken back.
    """
    return asyncio.run(_guarded(work))


async def _guarded(work: Coroutine[Any, Any, T]) -> T:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(work)
    signalled: list[int] = []

    def on_signal(number: int) -> None:
        signalled.append(number)
        if len(signalled) == 1:
            task.cancel()
        else:
            os.write(2, _WAIT)

    for number in SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await task
    except asyncio.CancelledError:
        if signalled:
            raise KeyboardInterrupt from None
        raise
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            if signalled:  # it has healed and is about to exit; let it say so
                signal.signal(number, signal.SIG_IGN)
