"""Stages that overlap: each computes ahead of the next, in a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")


def ahead(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """The same items in the same order, computed in another thread, at most ``depth`` ahead.

    Whatever ``items`` raises, an interruption too, is raised here in its place. Closing waits
    for the item that is being computed, ends the thread and closes ``items``.
    """
    iterator, end = iter(items), object()
    thread = ThreadPoolExecutor(1)
    try:
        coming: deque[Future[Any]] = deque()
        for _ in range(depth):
            coming.append(thread.submit(next, iterator, end))
        while (item := coming.popleft().result()) is not end:
            coming.append(thread.submit(next, iterator, end))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
        if isinstance(iterator, Generator):
            iterator.close()
