"""An event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class EventLoopThread:
    """An event loop in a thread of its own, which works whether or not the caller has one.

    Connections belong to an event loop. This one lasts, so they stay open between calls.
    """

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._run_forever, name="db3kd-remote-teacher", daemon=True
        )
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine and returns its result; cancels it if the caller is interrupted."""
        future = self.start(coroutine)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def start(self, coroutine: Coroutine[Any, Any, Result]) -> "Future[Result]":
        """Starts a coroutine and returns without waiting for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def call_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        """Calls a function in the thread of the event loop and returns without waiting for it."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def close(self, last: Callable[[], Awaitable[None]]) -> None:
        """Awaits `last()` and ends the thread, even if `last()` fails.

        Raises:
            Exception: If `last()` raises it.
        """

        async def finish() -> None:
            try:
                await last()
            finally:
                await self._loop.shutdown_default_executor()

        finished = self.start(finish())
        finished.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._loop.stop))
        # The garbage collector may call this in the thread itself, which cannot wait for its end.
        if threading.current_thread() is not self._thread:
            self._thread.join()
            finished.result()

    def _run_forever(self) -> None:
        self._loop.run_forever()
        self._loop.close()
