"""Iterators that compute their items ahead in a thread, so that stages of a pipeline overlap."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def few_processors() -> bool:
    """Whether there are so few processors that another thread would slow the network down."""
    return (os.cpu_count() or 1) <= 2


def prefetch(items: Iterable[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Yield the same items in the same order, but compute up to ``depth`` ahead in a thread.

    An error of ``items``, KeyboardInterrupt included, is raised in place of its item. Closing waits
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


def prefetch_map(
    function: Callable[[Item], Result], items: Iterable[Item], depth: int = 2
) -> Generator[Result, None, None]:
    """Yield ``function(item)`` of each item in order, computed up to ``depth`` ahead in a thread.

    The caller's thread takes the items, while the function runs in the other thread. An error of
    either is raised in place of its result. Closing waits for the result that is being computed and
    ends the thread.
    """
    failed = False

    def apply(item: Item) -> Result:
        nonlocal failed
        if failed:  # do not compute the items after an error
            raise CancelledError
        try:
            return function(item)
        except BaseException:
            failed = True
            raise

    thread = ThreadPoolExecutor(1)
    coming: deque[Future[Result]] = deque()
    iterator = iter(items)
    try:
        while True:
            try:
                item = next(iterator)
            except Exception as error:  # StopIteration too
                last = error
                break
            coming.append(thread.submit(apply, item))
            if len(coming) > depth:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
        if not isinstance(last, StopIteration):
            raise last
    finally:
        thread.shutdown(cancel_futures=True)
