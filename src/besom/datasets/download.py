"""Keras' own copy of MNIST: found in its cache, or downloaded by `keras.datasets` in a process of its own.

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
from pathlib import Path

from besom.errors import DataError

URL = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz"
PROBE_SECONDS = 4.0
DOWNLOAD_SECONDS = 300.0
WAYS_OUT = (
    "give the file with data.path=mnist.npz (x_train, y_train, x_test, y_test, as keras.datasets lays it out), "
    "or use data=mnist_5k, which needs no network"
)


def keras_mnist() -> Path:
    """Return the path of ``mnist.npz`` in Keras' cache, downloaded if it is not there yet.

    Raises:
        DataError: without network within 10 s, or when the download fails or takes longer than 5 minutes.
    """
    found = _cached()
    if found is None:
        _download()
        found = _cached()
    if found is None:
        raise DataError(f"Keras downloaded MNIST but not into its cache; {WAYS_OUT}")
    return found


def _cached() -> Path | None:
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras").expanduser()
    # the second is where Keras goes when it cannot write to the first
    folders = (home, Path("/tmp/.keras"), Path(tempfile.gettempdir(), ".keras"))
    files = (folder / "datasets" / "mnist.npz" for folder in folders)
    return next((file for file in files if file.is_file()), None)


def _download() -> None:
    if not _reachable(URL):
        raise DataError(f"MNIST is not in Keras' cache and {URL} cannot be reached; {WAYS_OUT}")
    command = [sys.executable, "-P", "-c", "import keras; keras.datasets.mnist.load_data()"]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}  # the one that is installed, whatever the shell prefers
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise DataError(f"the download of {URL} took longer than {DOWNLOAD_SECONDS:g} s; {WAYS_OUT}") from error
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"Keras could not download MNIST ({reason}); {WAYS_OUT}")


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
