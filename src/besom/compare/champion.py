"""The best trial of a sweep in MLflow's model registry: a registered model of the sweep's name, alias ``champion``.

Knows nothing of studies: it is told which run is the best, and by what value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from besom.errors import BesomError
from besom.uris import HTTP

ALIAS = "champion"
CONFIRMED = "confirmed"
"""Tag of a version whose trial `besom confirm` has found to be the best over new seeds."""
OWNER = "besom.study"
"""Tag of a registered model that besom made: the id of its study. Any other model of that name is left alone, be it a
person's or that of another store's sweep on the same server."""


def crown(
    client: Any, sweep: str, study: str, run_id: str, number: int, value: float, *, is_maximized: bool
) -> str | None:
    """Give the alias to a run's model, unless the champion that there is does as well; return its new version.

    A champion that `besom confirm` has found keeps the alias, whatever one better value says: only another
    confirmation takes it away.

    Args:
        client: an ``MlflowClient``.
        study: id of the sweep's study, which is another one for each sweep of that name.
        run_id: of the best trial; it has logged a model.
        value: its objective.

    Raises:
        BesomError: the name is that of a model which this sweep did not register.
    """
    version = _champion(client, sweep, study)
    if version is not None and not _is_beaten(version, value, is_maximized):
        return None
    made = _registered(client, sweep, run_id, number, value)
    if made is not None:
        client.set_registered_model_alias(sweep, ALIAS, made)
    return made


def confirm(
    client: Any, sweep: str, study: str, run_id: str, number: int, value: float, tags: Mapping[str, str]
) -> str | None:
    """Give the alias to a run's model whatever the champion was, with what it stands on as tags; return its version.

    Args:
        tags: with `CONFIRMED`, which another version that has it loses; set anew where the version has them already.

    Raises:
        BesomError: as `crown`.
    """
    _champion(client, sweep, study)
    known = [one for one in client.search_model_versions(f"run_id = '{run_id}'") if one.name == sweep]
    version = str(known[0].version) if known else _registered(client, sweep, run_id, number, value)
    if version is None:
        return None
    for one in client.search_model_versions(f"name = '{sweep}'"):
        if CONFIRMED in one.tags and str(one.version) != version:  # what it was confirmed against has changed
            client.delete_model_version_tag(sweep, one.version, CONFIRMED)
    for key, text in tags.items():
        client.set_model_version_tag(sweep, version, key, text)
    client.set_registered_model_alias(sweep, ALIAS, version)
    return version


def _registered(client: Any, sweep: str, run_id: str, number: int, value: float) -> str | None:
    """Register the model that a run logged and return its version; None where a user's own task logged none."""
    outputs = client.get_run(run_id).outputs
    if outputs is None or not outputs.model_outputs:
        return None
    model_id = outputs.model_outputs[-1].model_id
    made = client.create_model_version(
        sweep,
        source=_source(client, model_id),
        run_id=run_id,
        tags={"trial": str(number), "objective": repr(value)},
        model_id=model_id,
    )
    return str(made.version)


def _source(client: Any, model_id: str) -> str:
    """Return where the model's files are, in a form that the registry takes.

    A server finds ``models:/ID`` itself; for a database MLflow looks it up by its global URI, which besom never sets.
    """
    if client.tracking_uri.startswith((*HTTP, "databricks")):
        return f"models:/{model_id}"
    return str(client.get_logged_model(model_id).artifact_location)


def _is_beaten(version: Any, value: float, is_maximized: bool) -> bool:
    """Tell whether a value beats a champion's; a confirmed one, and one that somebody else gave the alias to, never."""
    other = version.tags.get("objective")
    if other is None or CONFIRMED in version.tags:
        return False
    return value > float(other) if is_maximized else value < float(other)


def _champion(client: Any, sweep: str, study: str) -> Any:
    """Return the version that has the alias, None where none has; the registered model is there afterwards."""
    model = find(client, sweep)
    if model is None:
        client.create_registered_model(sweep, tags={OWNER: study}, description=f"The best trial of sweep '{sweep}'")
        return None
    if model.tags.get(OWNER) != study:
        raise BesomError(
            f"the best trial has no alias '{ALIAS}': MLflow's registry has a model '{sweep}' that this sweep did not "
            "register, which is left alone; another --name gives the sweep's model another name"
        )
    number = model.aliases.get(ALIAS)
    return None if number is None else client.get_model_version(sweep, number)


def find(client: Any, sweep: str) -> Any:
    """Return the registered model of a name, None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_registered_model(sweep)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def forget(client: Any, sweep: str, study: str | None) -> None:
    """Delete a sweep's registered model with its versions, where that study made it; the runs' models stay."""
    model = find(client, sweep)
    if model is not None and study is not None and model.tags.get(OWNER) == study:
        client.delete_registered_model(sweep)
