"""The split: disjoint, exact, stratified, seeded, and the same test images whatever else is asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from besom.datasets.split import Split, split
from besom.errors import DataError

Labels = NDArray[np.int64]

label_arrays = st.lists(st.integers(0, 4), min_size=12, max_size=200).map(lambda labels: np.array(labels, np.int64))
seeds = st.integers(0, 2**32)


def cut(
    y: Labels,
    *,
    y_test: Labels | None = None,
    n_train: int | None = None,
    n_val: int | None = None,
    n_test: int | None = None,
    seed: int = 0,
) -> Split:
    return split(y, y_test, n_train, n_val, n_test, seed)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Labels, int, int, int]:
    """Labels and n_test, n_val, n_train that fit into them."""
    y = draw(label_arrays)
    n_test = draw(st.integers(0, len(y) - 2))
    n_val = draw(st.integers(1, len(y) - n_test - 1))
    return y, n_test, n_val, draw(st.integers(1, len(y) - n_test - n_val))


@settings(deadline=None)  # other processes may have the cores
@given(requests(), seeds)
def test_parts_are_disjoint_and_of_exactly_the_sizes_asked_for(
    request: tuple[Labels, int, int, int], seed: int
) -> None:
    y, n_test, n_val, n_train = request
    parts = cut(y, n_train=n_train, n_val=n_val, n_test=n_test, seed=seed)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (n_train, n_val, n_test)
    together = np.concatenate([parts.train, parts.val, parts.test])
    assert len(np.unique(together)) == len(together)
    assert together.min() >= 0
    assert together.max() < len(y)


@settings(deadline=None)
@given(requests(), seeds)
def test_each_part_has_the_class_shares_of_what_was_left_within_one_image(
    request: tuple[Labels, int, int, int], seed: int
) -> None:
    y, n_test, n_val, n_train = request
    parts = cut(y, n_train=n_train, n_val=n_val, n_test=n_test, seed=seed)
    left = np.bincount(y, minlength=5)
    for part in (parts.test, parts.val, parts.train):
        counts = np.bincount(y[part], minlength=5)
        assert (np.abs(counts - left * len(part) / left.sum()) < 1).all()
        left = left - counts


@settings(deadline=None)
@given(requests(), seeds)
def test_the_same_seed_gives_the_same_split_and_digest(request: tuple[Labels, int, int, int], seed: int) -> None:
    y, n_test, n_val, n_train = request
    one = cut(y, n_train=n_train, n_val=n_val, n_test=n_test, seed=seed)
    two = cut(y, n_train=n_train, n_val=n_val, n_test=n_test, seed=seed)
    assert one.digest == two.digest
    assert one.test.tolist() == two.test.tolist()


@settings(deadline=None)
@given(requests(), seeds)
def test_n_train_moves_neither_test_nor_validation_images(request: tuple[Labels, int, int, int], seed: int) -> None:
    y, n_test, n_val, n_train = request
    asked = cut(y, n_train=n_train, n_val=n_val, n_test=n_test, seed=seed)
    everything = cut(y, n_val=n_val, n_test=n_test, seed=seed)
    assert asked.val.tolist() == everything.val.tolist()
    assert asked.test.tolist() == everything.test.tolist()
    assert set(asked.train) <= set(everything.train)


@settings(deadline=None)
@given(requests(), seeds)
def test_n_val_does_not_move_test_images(request: tuple[Labels, int, int, int], seed: int) -> None:
    y, n_test, n_val, _ = request
    assert (
        cut(y, n_val=n_val, n_test=n_test, seed=seed).test.tolist()
        == cut(y, n_val=1, n_test=n_test, seed=seed).test.tolist()
    )


def test_another_seed_gives_another_split() -> None:
    y = np.arange(1000) % 10
    digests = {cut(y, seed=seed).digest for seed in range(20)}
    assert len(digests) == 20


def test_the_digest_tells_training_from_validation() -> None:
    one, two = np.array([1, 2]), np.array([3])
    none = np.array([], np.int64)
    assert len({Split(*parts, none).digest for parts in [(one, two), (two, one), (none, np.array([1, 2, 3]))]}) == 3


def test_without_numbers_a_tenth_is_validation_a_tenth_test_and_the_rest_training() -> None:
    parts = cut(np.arange(1000) % 10)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (800, 100, 100)


def test_counts_that_divide_evenly_are_even() -> None:
    y = np.repeat(np.arange(10), 500)
    parts = cut(y, n_train=4000, n_val=500, n_test=500)
    for part, each in ((parts.train, 400), (parts.val, 50), (parts.test, 50)):
        assert np.bincount(y[part]).tolist() == [each] * 10


def test_parts_are_mixed_even_where_the_file_is_sorted_by_class() -> None:
    y = np.repeat(np.arange(10), 500)
    parts = cut(y)
    assert all(len(set(y[part[:20]])) >= 6 for part in (parts.train, parts.val, parts.test))


def test_a_source_with_its_own_test_part_is_cut_from_it_alone() -> None:
    y, y_test = np.arange(100) % 4, np.arange(40) % 4
    parts = cut(y, y_test=y_test)
    assert sorted(parts.test) == list(range(40))
    assert len(parts.train) + len(parts.val) == 100
    assert np.bincount(y_test[cut(y, y_test=y_test, n_test=8).test]).tolist() == [2, 2, 2, 2]


TOO_MUCH: list[tuple[dict[str, int], str]] = [
    ({"n_train": 81}, r"data\.n_train=81 is too many: 80 of the 100 images are left for it; lower it or"),
    ({"n_val": 95}, r"data\.n_val=95 is too many: 90 of the 100 images"),
    ({"n_test": 101}, r"data\.n_test=101 is too many: 100 of the 100 images"),
    ({"n_val": 50, "n_test": 50}, r"data\.n_val=50 leaves none of the 100 images to train on; lower n_val or n_test"),
]


@pytest.mark.parametrize(("numbers", "message"), TOO_MUCH)
def test_more_images_than_there_are_is_refused_by_the_name_of_the_key(numbers: dict[str, int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        cut(np.arange(100) % 10, **numbers)


def test_more_test_images_than_the_source_has_of_its_own_is_refused() -> None:
    with pytest.raises(DataError, match=r"data\.n_test=9 is too many: 8 of the 8 images"):
        cut(np.arange(100) % 2, y_test=np.arange(8) % 2, n_test=9)
