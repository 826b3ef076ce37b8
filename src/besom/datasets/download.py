"""Keras' own copies of data sets: found in its cache, or downloaded by `keras.datasets` in a process of its own.

The process keeps TensorFlow out of this one, where threads may not be fixed yet, and can be stopped
when a download hangs. Whether there is a network is asked first, because Keras waits for minutes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from besom.datasets import idx
from besom.errors import DataError
from besom.files import expanded

BASE_URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
PROBE_SECONDS = 4.0
DOWNLOAD_SECONDS = 300.0


@dataclass(frozen=True)
class KerasData:
    """A data set as `keras.datasets` keeps it.

    Args:
        title: its name for people.
        module: its name in ``keras.datasets``.
        folder: below the folder ``datasets`` of Keras' cache, empty for that folder itself.
        files: what Keras puts there, called as below `BASE_URL`.
        by_hand: what to give as ``data.path`` where there is no network.
    """

    title: str
    module: str
    folder: str
    files: tuple[str, ...]
    by_hand: str

    @property
    def ways_out(self) -> str:
        return f"give {self.by_hand}, or use data=mnist_5k or data=digits, which need no network"


MNIST = KerasData(
    "MNIST",
    module="mnist",
    folder="",
    files=("mnist.npz",),
    by_hand="the file with data.path=mnist.npz (x_train, y_train, x_test, y_test, as keras.datasets lays it out)",
)
FASHION_MNIST = KerasData(
    "Fashion-MNIST",
    module="fashion_mnist",
    folder="fashion-mnist",
    files=tuple(f"{name}.gz" for name in idx.FILES),
    by_hand=f"a folder with the files {', '.join(idx.FILES)}, gzipped or not, with data.path=FOLDER "
    "(Debian's package dataset-fashion-mnist installs such a folder, /usr/share/datasets/fashion-mnist)",
)


def kept_by_keras(wanted: KerasData) -> Path:
    """Return where Keras' cache has a data set, downloaded if it is not there yet: its one file, or its folder.

    Raises:
        DataError: without network within 10 s, or when the download fails or takes longer than 5 minutes.
    """
    found = _cached(wanted)
    if found is None:
        _download(wanted)
        found = _cached(wanted)
    if found is None:
        raise DataError(f"Keras downloaded {wanted.title} but not into its cache; {wanted.ways_out}")
    return found


def _cached(wanted: KerasData) -> Path | None:
    home = expanded(os.environ.get("KERAS_HOME") or "~/.keras")
    # the second is where Keras goes when it cannot write to the first
    caches = (home, Path("/tmp/.keras"), Path(tempfile.gettempdir(), ".keras"))
    for folder in (cache / "datasets" / wanted.folder for cache in caches):
        if all((folder / name).is_file() for name in wanted.files):
            return folder if wanted.folder else folder / wanted.files[0]
    return None


def _download(wanted: KerasData) -> None:
    url, title = BASE_URL + wanted.files[0], wanted.title
    if not _reachable(url):
        raise DataError(f"{title} is not in Keras' cache and {url} cannot be reached; {wanted.ways_out}")
    command = [sys.executable, "-P", "-c", f"import keras; keras.datasets.{wanted.module}.load_data()"]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}  # the one that is installed, whatever the shell prefers
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"the download of {url} took longer than {DOWNLOAD_SECONDS:g} s; {wanted.ways_out}") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"Keras could not download {title} ({reason}); {wanted.ways_out}")


def _reachable(url: str) -> bool:
    """Ask for the headers of ``url``, through the proxy if there is one, for at most a few seconds."""
    answers: list[int] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=PROBE_SECONDS) as answer:
                answers.append(answer.status)
        except (OSError, ValueError):
            return  # no answer is the answer

    # a thread, because the look-up of a name obeys no timeout
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(PROBE_SECONDS + 2)
    return bool(answers)
