"""Claims about stages that overlap: same items, same errors, bounded, and gone at the end."""

import threading

import pytest

from deepfovea.pipeline import ahead


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
    doubled = (2 * number for number in ahead(numbers(count), depth))
    assert list(ahead(ahead(doubled, depth), depth)) == [2 * n for n in range(count)]


def test_the_next_item_is_made_while_one_is_used():
    made = threading.Event()

    def stage():
        yield "first"
        made.set()
        yield "second"

    items = ahead(stage())
    assert next(items) == "first"
    assert made.wait(30)  # nobody has asked for the second yet
    assert list(items) == ["second"]


def test_no_further_ahead_than_asked():
    made = []
    items = ahead(numbers(100, made), depth=3)
    for taken in range(1, 20):
        next(items)
        assert len(made) <= taken + 3
    items.close()
    assert len(made) <= 23


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt()])
def test_an_error_comes_in_its_place_and_ends_all_threads(failure):
    before, got = threading.active_count(), []
    with pytest.raises(type(failure)) as caught:
        for number in ahead(ahead(numbers(10, failure=failure))):
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

    items = ahead(ahead(source()))
    assert next(items) == 0
    assert threading.active_count() == before + 2
    items.close()
    assert threading.active_count() == before
    assert len(closed) == 1
