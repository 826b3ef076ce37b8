"""The truth about a sweep: an Optuna study in a storage, with the accounting that resuming and retrying need.

There are two copies. The *working copy* is in memory: samplers and pruners see it, so that asking costs
no transactions and a trial is stored whole, in one, or not at all. The *stored* copy is written behind
it at every step and is what the next start reads. The parent is the only writer of both.

Beside Optuna's state every trial carries user attributes: ``point`` (the index its suggestion was seeded
by), ``outcome`` (why it ended), ``retry_of``, ``run_id``, ``reason`` and what the task told (``n_params``,
…). They are set before the state, so a finished trial is always whole.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from besom.results import TrialResult
from besom.search.custom_space import CustomFailed, UsedUp
from besom.search.search import Search
from besom.server_storage import ServerStorage
from besom.storage import open_storage
from besom.sweep import run_ids
from besom.sweep.endings import attributes_of
from besom.sweep.tally import LOST, UNASKED, Counts, Tally, outcome

STATES = {state.name: state for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)}


@dataclass(frozen=True)
class Asked:
    """A trial that has its point and waits to be run; or, with an ``error``, to be closed."""

    number: int
    point: dict[str, Any]
    retry_of: int | None = None
    error: str | None = None


DATA_DIGEST = "data_digest"
"""Attribute of a study in a server: the SHA-256 of the images that its sweep was started with."""


def note_data(url: str, name: str, directions: Sequence[str], digest: str) -> None:
    """Store which images a sweep is trained on with its study, which is made for that where there is none yet."""
    study = optuna.create_study(
        storage=open_storage(url),
        study_name=name,
        directions=[StudyDirection[direction.upper()] for direction in directions],
        load_if_exists=True,
    )
    if DATA_DIGEST not in study.user_attrs:
        study.set_user_attr(DATA_DIGEST, digest)


class SweepStudy:
    """One sweep's study, opened for writing by its parent.

    Args:
        url: Optuna's storage URL, None to keep the study in memory only.
        name: the sweep's name.
        search: what is searched and how.
        settings: what must not change between starts, as `besom.sweep.settings` writes it; stored at the first.
        pruner: Optuna's; it is not stored with the study.
        on_return: called when the study's server answers that was away, before anything is written.
    """

    def __init__(
        self,
        url: str | None,
        name: str,
        search: Search,
        settings: Mapping[str, Any],
        pruner: BasePruner,
        on_return: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.search = search
        self._storage = open_storage(url, on_return) if url else optuna.storages.InMemoryStorage()
        self._stored = self._open(self._storage, pruner)
        self._stored_id = self._storage.get_study_id_from_name(name)
        self._memory = optuna.storages.InMemoryStorage()
        self._working = self._open(self._memory, pruner)
        self._working_id = self._memory.get_study_id_from_name(name)
        self._running: dict[int, Trial] = {}
        self._stored_ids: dict[int, int] = {}
        self._mirrored: dict[int | None, dict[str, Any]] = {}  # system attributes as stored; None: the study's
        self._load()
        if "settings" not in self._stored.user_attrs:
            self._stored.set_user_attr("id", secrets.token_hex(8))
            self._stored.set_user_attr("settings", dict(settings))
        self.id = str(self._stored.user_attrs["id"])
        """Names the study among all others, those of its name included."""

    def let_end(self, check: Callable[[], object]) -> None:
        """Have ``check`` called while the study's server is away; what it raises ends the waiting for it."""
        if isinstance(self._storage, ServerStorage):
            self._storage.while_away = check

    @property
    def is_given_up(self) -> bool:
        """Whether nothing more is written: another parent has the sweep, or its server stayed away."""
        return isinstance(self._storage, ServerStorage) and self._storage.is_given_up

    def _open(self, storage: optuna.storages.BaseStorage, pruner: BasePruner) -> optuna.Study:
        directions = [StudyDirection[direction.upper()] for direction in self.search.directions]
        return optuna.create_study(
            storage=storage, study_name=self.name, directions=directions, pruner=pruner, load_if_exists=True
        )

    def _load(self) -> None:
        """Take what is stored into the working copy, and count it."""
        trials = self._stored.get_trials(deepcopy=False)
        self._working.add_trials(trials)
        self._mirrored[None] = self._storage.get_study_system_attrs(self._stored_id)
        for key, value in self._mirrored[None].items():
            self._memory.set_study_system_attr(self._working_id, key, value)
        self.tally = Tally(self.search.directions, trials)
        self._seen = {self.search.key(one.params) for one in trials if "point" in one.user_attrs and one.params}
        self._enqueued = {trial.user_attrs["enqueued"] for trial in trials if "enqueued" in trial.user_attrs}
        self._found_nothing_new = False
        self._lost: dict[int, int] = {}  # point → the last trial that tried it and was lost
        self._next_point = 0
        for trial in trials:
            self._count_point(trial)

    def _count_point(self, trial: FrozenTrial) -> None:
        point = trial.user_attrs.get("point")
        if point is None:
            return
        self._next_point = max(self._next_point, point + 1)
        if outcome(trial) in LOST:
            self._lost[point] = trial.number
        else:
            self._lost.pop(point, None)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self._working.get_trials(deepcopy=False)

    @property
    def settings(self) -> dict[str, Any]:
        """What the sweep was started with, by dotted key."""
        return dict(self._stored.user_attrs["settings"])

    @property
    def counts(self) -> Counts:
        return self.tally.counts

    @property
    def best(self) -> FrozenTrial | None:
        return self.tally.best

    def aim_at(self, n_trials: int | None) -> None:
        """Store how many trials this start ends at, for `besom status`."""
        self._stored.set_user_attr("n_trials", n_trials)

    def seed(self, given: int | None) -> int:
        """Return the study's seed: the given one, or one that is drawn once and stored."""
        stored = self._stored.user_attrs.get("seed")
        if stored is None:
            stored = secrets.randbelow(2**31) if given is None else given
            self._stored.set_user_attr("seed", stored)
        return int(stored)

    def code(self, now: Mapping[str, str]) -> dict[str, str]:
        """Return the code that the sweep was started with, hash by file; ``now`` at its first start."""
        if "code" not in self._stored.user_attrs:
            self._stored.set_user_attr("code", dict(now))
        return dict(self._stored.user_attrs["code"])

    def home(self, folder: Path) -> Path:
        """Return the folder of the sweep's first start, where the copies of its configs are; later ones may differ."""
        first = self._stored.user_attrs.get("home")
        if first is None or not Path(first).is_dir():
            self._stored.set_user_attr("home", str(folder))
            return folder
        return Path(first)

    @property
    def is_used_up(self) -> bool:
        """Whether every point of a finite space was taken, or no new one could be found."""
        size = self.search.size
        return self._found_nothing_new or (size is not None and len(self._seen) >= size)

    def ask(self, seed: int) -> Asked | None:
        """Take the next point that nobody has tried: a trial of the study, RUNNING.

        Returns None when the space is used up; no trial is made then.
        """
        if self.is_used_up:
            return None
        self._working.sampler = self.search.new_point(self._seen, seed, self._next_point)
        return self._take(self._next_point)

    def retry(self, lost: FrozenTrial, seed: int) -> Asked | None:
        """Try the point of a lost trial again, as a new trial."""
        self._working.sampler = self.search.same_point(lost, self._seen, seed)
        return self._take(lost.user_attrs["point"], retry_of=lost.number)

    def take(self, place: int, point: Mapping[str, Any], seed: int) -> Asked | None:
        """Take a point that the user named at a place of ``enqueue``; None when it was taken before."""
        if place in self._enqueued or (self.search.custom is None and self.search.key(point) in self._seen):
            return None
        self._enqueued.add(place)
        self._working.sampler = self.search.given_point(point, self._seen, seed, self._next_point)
        return self._take(self._next_point, enqueued=place)

    def _take(self, index: int, **marks: int) -> Asked | None:
        trial, failure = self._working.ask(), None
        try:
            point = self.search.suggest(trial)
        except UsedUp as error:
            self._close_unasked(trial, str(error))
            return None
        except CustomFailed as error:  # of this point alone: the next one may do
            point, failure = dict(trial.params), str(error)
        for key, value in {"point": index, **marks}.items():
            trial.set_user_attr(key, value)
        frozen = self._working_trial(trial.number)
        self._stored_ids[trial.number] = self._storage.create_new_trial(self._stored_id, frozen)
        self._mirrored[trial.number] = dict(frozen.system_attrs)
        self._mirror_study()
        self._running[trial.number] = trial
        if point:
            self._seen.add(self.search.key(point))
        self._count_point(frozen)
        self.tally.running += 1
        return Asked(trial.number, point, marks.get("retry_of"), failure)

    def _close_unasked(self, trial: Trial, reason: str) -> None:
        """Close a trial that never got a point, in both copies, so that their numbers stay the same."""
        trial.set_user_attr("outcome", UNASKED)
        trial.set_user_attr("reason", reason)
        self._working.tell(trial, state=TrialState.FAIL)
        self._storage.create_new_trial(self._stored_id, self._working_trial(trial.number))
        self._found_nothing_new = True

    def note(self, number: int, attributes: Mapping[str, Any]) -> None:
        """Store attributes with a trial that has not ended."""
        for key, value in attributes.items():
            self._memory.set_trial_user_attr(self._in_memory(number), key, value)
            self._storage.set_trial_user_attr(self._in_storage(number), key, value)

    def report(self, number: int, step: int, value: float) -> bool:
        """Store an intermediate value; return True when the pruner wants the trial to stop.

        Of a step that is reported twice the first value counts, as in Optuna. With several objectives nothing is
        stored: Optuna prunes by one.
        """
        trial = self._running[number]
        if len(self.search.directions) > 1 or step in self._working_trial(number).intermediate_values:
            return False
        trial.report(value, step)
        self._storage.set_trial_intermediate_value(self._in_storage(number), step, value)
        return trial.should_prune()

    def hear(self, number: int) -> None:
        """Take over what a trial reported through the storage itself."""
        for step, value in self._storage.get_trial(self._in_storage(number)).intermediate_values.items():
            self._memory.set_trial_intermediate_value(self._in_memory(number), step, value)

    def constraints_of(self, number: int) -> dict[str, float]:
        """Return by how much a trial breaks each constraint that was decided for it."""
        return self._working_trial(number).constraints

    def constrain(self, number: int, violations: Mapping[str, float]) -> None:
        """Store by how much a running trial breaks each constraint; 0 and less keeps it."""
        if not violations:
            return
        trial = Trial(self._working, self._in_memory(number))
        for name, violation in violations.items():
            trial.set_constraint(name, violation)
        self._mirror_trial(number)

    def finish(self, result: TrialResult, why: str | None = None) -> None:
        """Tell the study how a trial ended by itself."""
        self.note(result.number, attributes_of(result, why))
        self._close(result.number, STATES[result.state], result.values)

    def lose(self, number: int, why: str, reason: str, retries: int) -> bool:
        """Close a trial that did not end by itself as FAIL; return True when its point is to be tried again.

        A point that kills its lane more than ``retries`` times is an own failure from then on.
        """
        if why == "lane_died" and self._lane_deaths(number) >= retries:
            why, reason = "failed", f"{reason}; given up after {retries} retries"
        self.note(number, {"outcome": why, "reason": reason})
        self._close(number, TrialState.FAIL, ())
        return why in LOST

    def _lane_deaths(self, number: int) -> int:
        trials = self.trials
        point = trials[number].user_attrs.get("point")
        return sum(outcome(trial) == "lane_died" and trial.user_attrs.get("point") == point for trial in trials)

    @property
    def run_ids(self) -> dict[str, str]:
        """Return which runs of MLflow provisional ids became, see `besom.sweep.run_ids`."""
        return run_ids.known_ids(self._stored)

    def note_run_ids(self, became: Mapping[str, str]) -> None:
        """Store which runs of MLflow provisional ids became."""
        run_ids.note(self._stored, became)

    def left_running(self) -> list[FrozenTrial]:
        """Return the trials that are RUNNING in the study but not in this process: those of a dead parent."""
        if self.tally.running == len(self._running):
            return []
        mine = self._running
        return [trial for trial in self.trials if trial.state is TrialState.RUNNING and trial.number not in mine]

    def to_retry(self) -> list[FrozenTrial]:
        """Return the last attempt of every point that was lost and not tried again since, in order of points."""
        return [self._working_trial(self._lost[point]) for point in sorted(self._lost)]

    def _close(self, number: int, state: TrialState, values: Sequence[float]) -> None:
        self._working.tell(number, list(values) or None, state)
        self._mirror_trial(number)
        trial = self._working_trial(number)
        self._storage.set_trial_state_values(self._in_storage(number), trial.state, trial.values)
        self._running.pop(number, None)
        self._mirrored.pop(number, None)
        self._count_point(trial)
        self.tally.end(trial)

    def _working_trial(self, number: int) -> FrozenTrial:
        return self._memory.get_trial(self._in_memory(number))

    def _in_memory(self, number: int) -> int:
        return self._memory.get_trial_id_from_study_id_trial_number(self._working_id, number)

    def _in_storage(self, number: int) -> int:
        if number not in self._stored_ids:
            found = self._storage.get_trial_id_from_study_id_trial_number(self._stored_id, number)
            self._stored_ids[number] = found
        return self._stored_ids[number]

    def _mirror_trial(self, number: int) -> None:
        """Store what a sampler or a constraint has written into a trial since it was asked for."""
        known = self._mirrored.setdefault(number, {})
        for key, value in self._working_trial(number).system_attrs.items():
            if known.get(key) != value:
                self._storage.set_trial_system_attr(self._in_storage(number), key, value)
                known[key] = value

    def _mirror_study(self) -> None:
        """Store what a sampler has written into the study, such as its population."""
        known = self._mirrored[None]
        for key, value in self._memory.get_study_system_attrs(self._working_id).items():
            if known.get(key) != value:
                self._storage.set_study_system_attr(self._stored_id, key, value)
                known[key] = value
