"""Decoded images are there once for all processes of a sweep, and are the same whichever way they come."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from besom import data
from besom.datasets import shared
from besom.trial.images import ALIGNMENT, images_of

CONFIG = {"_target_": "besom.data.mnist_5k", "n_train": 300, "n_val": 100, "n_test": 100, "rescale": "unit"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(data.SHARED_FOLDER, str(tmp_path / "images"))
    data._load.cache_clear()
    return tmp_path / "images"


def test_what_was_kept_is_mapped_with_every_bit(tmp_path: Path) -> None:
    arrays = {"x": np.arange(24, dtype=np.float32).reshape(2, 3, 4), "y": np.array([3, 1])}
    shared.keep(tmp_path / "one", arrays, {"name": "자료", "value": 0.1})
    found = shared.mapped(tmp_path / "one")
    assert found is not None
    assert found[1] == {"name": "자료", "value": 0.1}
    for name, array in arrays.items():
        assert np.array_equal(found[0][name], array)
        assert found[0][name].dtype == array.dtype
        assert found[0][name].ctypes.data % ALIGNMENT == 0
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_change_of_one_process_is_seen_by_no_other(tmp_path: Path) -> None:
    shared.keep(tmp_path / "one", {"x": np.zeros(5)}, {})
    first, second = shared.mapped(tmp_path / "one"), shared.mapped(tmp_path / "one")
    assert first is not None
    assert second is not None
    first[0]["x"][0] = 1.0
    assert second[0]["x"][0] == 0.0


def test_the_faster_of_two_wins_and_nothing_is_left_of_the_slower(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        shared.keep(tmp_path / "one", {"x": np.full(3, value)}, {})
    found = shared.mapped(tmp_path / "one")
    assert found is not None
    assert found[0]["x"][0] == 1.0
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize("left", ["", "{"])
def test_a_folder_that_is_not_whole_counts_for_nothing(tmp_path: Path, left: str) -> None:
    assert shared.mapped(tmp_path / "none") is None
    (tmp_path / "half").mkdir()
    if left:
        (tmp_path / "half" / shared.ABOUT).write_text(left)
    assert shared.mapped(tmp_path / "half") is None


def test_a_folder_that_lacks_an_array_counts_for_nothing(tmp_path: Path) -> None:
    shared.keep(tmp_path / "one", {"x": np.zeros(3), "y": np.zeros(3)}, {})
    (tmp_path / "one" / "y.npy").unlink()
    assert shared.mapped(tmp_path / "one") is None


def test_nothing_is_kept_that_would_fill_the_disk(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    huge = np.broadcast_to(np.zeros(1), (free // 16,))  # 8 bytes each: half of what is free, and no memory
    shared.keep(tmp_path / "one", {"x": huge}, {})
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_kept_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    shared.keep(tmp_path / "file" / "one", {"x": np.zeros(3)}, {})
    assert shared.mapped(tmp_path / "file" / "one") is None


def test_shared_images_are_those_of_a_process_of_its_own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data.share(CONFIG, folder)
    mapped = data.load(CONFIG)
    assert len(list(folder.iterdir())) == 1
    monkeypatch.delenv(data.SHARED_FOLDER)
    data._load.cache_clear()
    own = data.load(CONFIG)
    for field in ("x_train", "y_train", "x_val", "y_val"):
        assert np.array_equal(getattr(mapped, field), getattr(own, field))
        assert not getattr(mapped, field).flags.writeable
        assert not getattr(own, field).flags.writeable
    for field in ("name", "n_classes", "digest", "split_digest", "scaling"):
        assert getattr(mapped, field) == getattr(own, field)


def test_another_process_reads_the_file_and_decodes_nothing(folder: Path) -> None:
    data.share(CONFIG, folder)
    program = (
        "import sys; from besom import data; data._decoded = None; "
        f"print(data.load({CONFIG!r}).digest, 'mlxtend' in sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.split() == [data.load(CONFIG).digest, "False"]


def test_what_nobody_shared_is_decoded_and_not_kept(folder: Path) -> None:
    assert len(data.load(CONFIG).x_train) == 300
    assert not folder.exists()


def test_tensors_share_the_memory_of_mapped_images(folder: Path) -> None:
    data.share(CONFIG, folder)
    dataset = data.load(CONFIG)
    images = images_of(dataset)
    assert np.array_equal(images.x_train.numpy(), dataset.x_train)
    assert images.x_train.numpy().dtype == np.float32
    before = float(images.x_train[0, 0, 0, 0])
    writable = dataset.x_train.view()
    writable.flags.writeable = True
    writable[0, 0, 0, 0] = before + 1  # a copy of the page, of this process alone
    assert float(images.x_train[0, 0, 0, 0]) == before + 1
    assert images_of(dataset) is images
