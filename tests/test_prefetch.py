"""Claims about overlapping stages: same items and errors, bounded queues, no thread left behind."""

import threading
from functools import partial

import pytest

from deepfovea.io.prefetch import prefetch, prefetch_map


def numbers(count, made=None, failure=None):
    for number in range(count):
        if failure is not None and number == 3:
            raise failure
        if made is not None:
            made.append(number)
        yield number


@pytest.mark.parametrize("count", [0, 1, 2, 50])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_same_items_in_order_through_three_stages(count, depth):
    doubled = (2 * number for number in prefetch(numbers(count), depth))
    assert list(prefetch(prefetch(doubled, depth), depth)) == [2 * n for n in range(count)]


def test_the_next_item_is_made_while_one_is_used():
    made = threading.Event()

    def stage():
        yield "first"
        made.set()
        yield "second"

    items = prefetch(stage())
    assert next(items) == "first"
    assert made.wait(30)  # nobody has asked for the second yet
    assert list(items) == ["second"]


@pytest.mark.parametrize("stage", [prefetch, partial(prefetch_map, str)], ids=["items", "function"])
def test_no_further_ahead_than_asked(stage):
    made = []
    results = stage(numbers(100, made), depth=3)
    for taken in range(1, 20):
        next(results)
        assert len(made) <= taken + 3
    results.close()
    assert len(made) <= 23


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt()])
def test_an_error_comes_in_its_place_and_ends_all_threads(failure):
    before, got = threading.active_count(), []
    with pytest.raises(type(failure)) as caught:
        for number in prefetch(prefetch(numbers(10, failure=failure))):
            got.append(number)
    assert caught.value is failure
    assert got == [0, 1, 2]
    assert threading.active_count() == before


def test_closing_ends_all_threads_and_closes_the_source():
    before, closed = threading.active_count(), []

    def source():
        try:
            yield from numbers(1000)
        finally:
            closed.append(threading.current_thread())

    items = prefetch(prefetch(source()))
    assert next(items) == 0
    assert threading.active_count() == before + 2
    items.close()
    assert threading.active_count() == before
    assert len(closed) == 1


@pytest.mark.parametrize("count", [0, 1, 2, 50])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_a_function_of_each_item_in_order(count, depth):
    results = prefetch_map(lambda number: 2 * number, numbers(count), depth)
    assert list(results) == [2 * number for number in range(count)]


def test_items_are_taken_here_while_the_function_is_busy_there():
    threads, begun, taken = [], threading.Event(), threading.Event()

    def items():
        yield "first"
        assert begun.wait(30)  # the function is busy with the first
        threads.append(threading.current_thread())
        taken.set()
        yield "second"

    def function(item):
        begun.set()
        assert taken.wait(30)
        threads.append(threading.current_thread())
        return item

    assert list(prefetch_map(function, items())) == ["first", "second"]
    assert threads[0] is threading.current_thread()
    assert threads[1] is threads[2] is not threads[0]


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["items", "function"])
def test_an_error_of_items_or_function_comes_in_its_place(where, failure):
    before, got, begun = threading.active_count(), [], []

    def function(number):
        begun.append(number)
        if where == "function" and number == 3:
            raise failure
        return number

    items = numbers(10, failure=failure if where == "items" else None)
    with pytest.raises(type(failure)) as caught:
        for number in prefetch_map(function, items):
            got.append(number)
    assert caught.value is failure
    if where == "function" or isinstance(failure, Exception):  # an interruption comes at once
        assert got == [0, 1, 2]
    assert max(begun) <= 3  # nothing after the error
    assert threading.active_count() == before


def test_closing_ends_the_thread_of_the_function():
    before = threading.active_count()
    results = prefetch_map(str, numbers(1000))
    assert next(results) == "0"
    assert threading.active_count() == before + 1
    results.close()
    assert threading.active_count() == before
