"""What a reproduction is asked for, and what of it is known before anything is trained: the data, and what differs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from besom.compare.catalog import StoredRun
from besom.configs.config import typed
from besom.reproduce.causes import Circumstances, Difference, differences
from besom.reproduce.original import Original
from besom.retrain.here import fingerprint_here
from besom.retrain.trust import trusted
from besom.tracking import params_of


@dataclass(frozen=True)
class Options:
    """How to reproduce.

    Args:
        allow: packages that a stored config may import a loader or builder from, besides besom itself.
        threads: of TensorFlow, None for as many as then; another number gives other bits.
        onednn: whether TensorFlow computes with oneDNN, as besom always trains; without it the bits are others.
        data_path: takes the place of the config's ``data.path``.
        n_lanes: how many trials are trained at the same time; None for what fits.
    """

    allow: Sequence[str] = field(default_factory=list)
    threads: int | None = None
    onednn: bool = True
    data_path: str | None = None
    n_lanes: int | None = None


@dataclass(frozen=True)
class Request:
    """One run that is to be repeated, all that it needs found and checked.

    Args:
        content: its config as it will be trained.
        foreseen: what of the fingerprint differs already, before anything is trained.
    """

    run: StoredRun
    original: Original
    content: Mapping[str, Any]
    threads: int
    foreseen: list[Difference]

    @classmethod
    def of(cls, run: StoredRun, options: Options) -> Request:
        """Read and check what a run left.

        Raises:
            NotFound: it ended before it had a result, or an artifact is gone.
            ConfigError: its config may not be trained here, see `besom.retrain.trust.trusted`.
            DataError: the data is gone or no longer what it must be.
        """
        original = Original.of(run)
        return cls.checked(original, trusted(run, options.allow, options.data_path), options, lambda: run)

    @classmethod
    def checked(
        cls, original: Original, content: Mapping[str, Any], options: Options, home: Callable[[], StoredRun]
    ) -> Request:
        """Check what a trusted config needs.

        Args:
            home: gives the run beside which the new one is recorded; called when all else is known to be good.
        """
        if options.threads is not None:
            content = {**content, "train": {**content["train"], "threads": options.threads}}
        config = typed(content)
        known = original.fingerprint  # nothing, where the original never had its data
        now = Circumstances(fingerprint_here(content, onednn=options.onednn) if known else {}, params_of(content))
        before = Circumstances(known, original.params)
        return cls(home(), original, content, config.train.threads, differences(before, now))
