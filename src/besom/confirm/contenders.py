"""Who is compared: the best complete trials of a sweep, and the base config that it varied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

from besom.compare.catalog import StoredRun, open_run
from besom.compare.trials import SweepTrials
from besom.confirm.baseline import base_content
from besom.confirm.contender import Contender, identity_of, refuse_other_data
from besom.errors import BesomError, ConfigError, NotFound
from besom.paths import Store
from besom.retrain.here import fingerprint_here
from besom.retrain.trust import trusted, trusted_content
from besom.sweep.run_ids import known_ids, run_id_of
from besom.sweep.tally import is_feasible
from besom.tracking import uri_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial


@dataclass(frozen=True)
class Trust:
    """What the user says of the stored configs.

    Args:
        allow: packages that they may import a loader or builder from.
        data_path: takes the place of their ``data.path``.
    """

    allow: Sequence[str] = ()
    data_path: str | None = None


@dataclass
class Finder:
    """Finds the contenders of one sweep.

    Args:
        notes: what is to be told on the way, one line each.
    """

    store: Store
    study: Study
    trust: Trust
    notes: list[str] = field(default_factory=list)

    def find(self, top: int) -> list[Contender]:
        """Return the leaders, best first, then the baseline, unless a leader is it.

        Raises:
            NotFound: no trial is complete, or a run or its config is gone.
            UserError: a config may not be trained here, or its data is not what it was.
        """
        ranked = self._ranked()
        leaders: dict[str, Contender] = {}
        for trial in ranked:
            if len(leaders) == top:
                break
            made = self._of(trial)
            leaders.setdefault(made.identity, made)  # with train.seed swept the same config may come twice
        baseline = self._baseline(ranked, list(leaders.values()))
        if baseline is not None:
            leaders[baseline.identity] = baseline
        return list(leaders.values())

    def _ranked(self) -> list[FrozenTrial]:
        name, study = self.study.study_name, self.study
        if len(study.directions) > 1:
            raise ConfigError(
                f"sweep '{name}' has {len(study.directions)} objectives; expected one, by which contenders can be told "
                "better from worse"
            )
        ranked = [trial for trial in SweepTrials.of(study).ranked if is_feasible(trial)]
        if not ranked:
            raise NotFound(f"sweep '{name}' has no complete trial yet; see 'besom status {name}'")
        return ranked

    def _of(self, trial: FrozenTrial) -> Contender:
        run = self._run(trial)
        content = trusted(run, self.trust.allow, self.trust.data_path)
        found = fingerprint_here(content)
        refuse_other_data(run, found)
        if run.tags.get("fingerprint.code") != found["code"]:
            self._note("the code is not as it was when the sweep ran; contenders are trained with what is there now")
        return Contender(content, identity_of(found), run, trial.number, float(trial.values[0]))

    def _run(self, trial: FrozenTrial) -> StoredRun:
        run_id = run_id_of(trial, known_ids(self.study))
        if run_id is None:
            raise NotFound(f"trial {trial.number} has no run in MLflow; expected one, which holds its config")
        uri = uri_of(self.store, self.study.study_name)
        return open_run(self.store, uri, run_id)

    def _baseline(self, ranked: Sequence[FrozenTrial], leaders: Sequence[Contender]) -> Contender | None:
        """Return the base config as a contender: as the trial that it was, if it was one."""
        settings, home = self.study.user_attrs.get("settings") or {}, leaders[0].home
        try:
            content = base_content(settings, [one.content for one in leaders])
            content = trusted_content(content, home, self.trust.allow, self.trust.data_path)
            _refuse_what_does_not_fit(content)
            identity = identity_of(fingerprint_here(content))
        except BesomError as error:
            self._note(f"the sweep's base config cannot be a contender: {error}")
            return None
        for one in chain(leaders, self._others(settings, ranked)):
            if one.identity == identity:
                return replace(one, is_baseline=True)
        return Contender(content, identity, home, None, None, is_baseline=True)

    def _others(self, settings: Mapping[str, Any], ranked: Sequence[FrozenTrial]) -> Iterator[Contender]:
        """Yield the trials that may have been the base config; one that cannot be read is none."""
        for trial in _may_be(settings, ranked):
            with suppress(BesomError):
                yield self._of(trial)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _refuse_what_does_not_fit(content: Mapping[str, Any]) -> None:
    from besom.trial.measure import sized

    sized(content)


def _may_be(settings: Mapping[str, Any], ranked: Sequence[FrozenTrial]) -> Iterator[FrozenTrial]:
    """Yield the trials of which no parameter is known to have another value than the base config gives it."""
    for trial in ranked:
        pairs = [(value, settings[key]) for key, value in trial.params.items() if key in settings]
        if all(value == own for value, own in pairs if type(value) is type(own)):
            yield trial
