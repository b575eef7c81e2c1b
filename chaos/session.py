"""What the tests of one session share: an event loop, fabrics that are up, probes that go on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from chaos import drivers
from chaos.driver import Driver
from chaos.errors import BlockedError, CapabilityError, FabricError, SpecError
from chaos.observe import Observer

T = TypeVar("T")


class _Loop:
    """One event loop in a thread of its own, so that fixtures of one session share a fabric."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="railbreak", daemon=True)
        self.thread.start()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


class Session:
    """Fabrics, one per name, brought up when first asked for; and what runs on them."""

    def __init__(self, driver: str = "netns", on: str = "") -> None:
        self._loop = _Loop()
        self._driver, self._on = driver, on
        self._up: dict[str, Driver | Exception] = {}
        self._kept: Observer | None = None

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run asynchronous work to its end: the one synchronous face."""
        return self._loop.call(work)

    def get(self, name: str) -> Driver:
        """The running fabric of that name; a fabric that once failed stays failed.

        Raises:
            CapabilityError: it cannot be had here.
            BlockedError: it did not come up.
        """
        name = self._on or name
        if name not in self._up:
            try:
                self._up[name] = self.call(self._bring_up(name))
            except (FabricError, SpecError) as error:
                self._up[name] = error
        found = self._up[name]
        if isinstance(found, CapabilityError):
            raise found
        if isinstance(found, Exception):
            raise BlockedError(f"fabric {name}: {found}") from found
        return found

    async def observer(self, driver: Driver, probes: Mapping[str, Any]) -> Observer:
        """Probes that go on from trial to trial, as long as they are the same ones."""
        kept = self._kept
        if kept is None or kept.driver is not driver or kept.probes != dict(probes):
            await self.stop_probes()
            kept = self._kept = Observer(driver, probes)
        return kept

    async def stop_probes(self) -> None:
        """End those that went on."""
        kept, self._kept = self._kept, None
        if kept is not None:
            await kept.stop()

    async def _bring_up(self, name: str) -> Driver:
        if self._on:
            return await drivers.attach(name)
        driver = await drivers.named(self._driver).up(drivers.fabric(name, self._driver))
        try:
            await driver.wait_ready()
        except BaseException:
            await driver.down()
            raise
        return driver

    def close(self) -> None:
        """Take down every fabric of this session."""
        self.call(self.stop_probes())
        for driver in self._up.values():
            if not isinstance(driver, Exception) and not self._on:
                self.call(driver.down())
        self._loop.close()
