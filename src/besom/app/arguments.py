"""What each command takes: flags, their types and their help texts."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn

from besom.errors import MOST_QUOTED, ConfigError

FORMATS = ("table", "csv", "json")
MOST_MESSAGE = 1000
"""Characters of what argparse says; it repeats what it was given."""
VERDICTS = ("bit-identical", "same-predictions", "within-noise", "different")
RUN_HELP = "an MLflow run id, a sweep's trial such as quick/3, or a sweep's name for its best trial"


class Parser(argparse.ArgumentParser):
    """argparse with besom's own error lines."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message[:MOST_MESSAGE]}; see '{self.prog} --help'")


def _overrides(parser: Parser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE", help="Hydra override, such as train.epochs=3")


def _store(parser: Parser) -> None:
    parser.add_argument("--store", metavar="FOLDER", help="the store to read (default: BESOM_STORE, else mlruns)")


def _format(parser: Parser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="table", help="how to print (default: table)")


def _one_sweep(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="name of the sweep")
    _store(parser)


def _sweep(parser: Parser) -> None:
    parser.add_argument("sweep", nargs="?", metavar="NAME|PATH", help="a sweep's name, or a YAML file of your own")
    _overrides(parser)
    parser.add_argument("--trials", type=int, metavar="N", help="total number of trials (hydra.sweeper.n_trials)")
    parser.add_argument("--jobs", type=int, metavar="N", help="trials at the same time (hydra.sweeper.n_jobs)")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the search (hydra.sweeper.sampler.seed)")
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="start no trial after so long (hydra.sweeper.timeout)"
    )
    parser.add_argument("--sampler", metavar="NAME", help="tpe, random, grid, … (hydra/sweeper/sampler)")
    parser.add_argument("--pruner", metavar="NAME", help="none, median, … (hydra/sweeper/pruner)")
    parser.add_argument("--engine", metavar="NAME", help="what runs the trials: lanes, ray, joblib, … (hydra/launcher)")
    parser.add_argument("--name", metavar="NAME", help="run it under this name (hydra.sweeper.study_name)")
    parser.add_argument("--fresh", action="store_true", help="delete what there is under the name and start over")
    parser.add_argument(
        "--dry-run", action="store_true", help="size of the space, first points, estimate; starts nothing"
    )
    _format(parser)


def _train(parser: Parser) -> None:
    _overrides(parser)
    parser.add_argument("-m", "--multirun", action="store_true", help="one run for each combination, as in Hydra")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="a YAML file that is the whole config, as 'besom export' writes it"
    )
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PACKAGE", help="let that file import a builder from PACKAGE"
    )


def _status(parser: Parser) -> None:
    _one_sweep(parser)
    _format(parser)
    parser.add_argument(
        "--watch",
        nargs="?",
        type=_seconds,
        const=2.0,
        metavar="SECONDS",
        help="look again every so many seconds (default: 2) until the sweep is complete or nobody runs it",
    )


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 0.1; the sweep's NAME goes before it")
    return seconds


def _runs(parser: Parser) -> None:
    _one_sweep(parser)
    _format(parser)
    parser.add_argument("--all", action="store_true", help="every column, and attempts that died with their lane")
    parser.add_argument(
        "--sort",
        type=_names,
        metavar="COLUMN[,COLUMN…]",
        help="the first one first; an objective has its best value first (default: number)",
    )
    parser.add_argument("--desc", action="store_true", help="sort the other way round")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="EXPRESSION",
        help="show only trials for which it holds: 'n_params<=200000', state=COMPLETE, activation!=relu, "
        "objective=null; again for a further one",
    )
    parser.add_argument("--columns", type=_names, metavar="COLUMN[,COLUMN…]", help="show these instead")
    parser.add_argument("--limit", type=_count, metavar="N", help="show the first N only")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text[:MOST_QUOTED]!r} is no number from 1")
    return int(text)


def _diff(parser: Parser) -> None:
    for name in ("first", "second"):
        parser.add_argument(name, metavar="RUN|SWEEP[/NUMBER]", help=RUN_HELP)
    parser.add_argument("--all", action="store_true", help="what is the same, too")
    _store(parser)
    _format(parser)
    parser.epilog = "Exit code 0 whether they differ or not: 'differs' of --format json is empty where nothing does."


def _read_one(parser: Parser) -> None:
    _one_sweep(parser)
    _format(parser)


def _report(parser: Parser) -> None:
    _one_sweep(parser)
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="the page; the CSV is written beside it (default: reports/NAME.html in the store)",
    )
    _format(parser)


def _reproduce(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN|SWEEP[/NUMBER]|DIR", help=f"{RUN_HELP}; or a folder of 'besom export'")
    parser.add_argument("--all", action="store_true", help="every trial of the sweep, pruned and failed ones too")
    parser.add_argument("--jobs", type=int, metavar="N", help="trials at the same time (default: as many as fit)")
    parser.add_argument("--accept", choices=VERDICTS, default="bit-identical", help="exit 0 up to this verdict")
    parser.add_argument("--from-model", action="store_true", help="evaluate the stored model instead of training again")
    parser.add_argument("--threads", type=int, metavar="N", help="train with so many threads (default: as then)")
    parser.add_argument("--onednn", choices=("on", "off"), default="on", help="TensorFlow's oneDNN (default: on)")
    _trust(parser)
    _store(parser)
    _format(parser)


def _confirm(parser: Parser) -> None:
    _one_sweep(parser)
    parser.add_argument("--top", type=int, default=3, metavar="K", help="so many leaders (default: 3)")
    parser.add_argument("--seeds", type=int, default=5, metavar="S", help="so many new seeds for each (default: 5)")
    parser.add_argument("--jobs", type=int, metavar="N", help="trainings at the same time (default: as many as fit)")
    parser.add_argument("--no-test", action="store_true", help="leave the locked test set closed")
    parser.add_argument(
        "--open-test-again", action="store_true", help="even if it was opened for another winner; that is recorded"
    )
    _trust(parser)
    _format(parser)


def _trust(parser: Parser) -> None:
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PACKAGE", help="let the run's config import PACKAGE"
    )
    parser.add_argument("--data-path", metavar="PATH", help="where the images are now (in place of data.path)")


def _export(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN|SWEEP[/NUMBER]", help=RUN_HELP)
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder that is empty or not there yet")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PACKAGE", help="let the run's config import PACKAGE"
    )
    _store(parser)
    _format(parser)


def _summary(parser: Parser) -> None:
    _overrides(parser)
    _format(parser)


def _predict(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN|SWEEP[/NUMBER]", help=RUN_HELP)
    _store(parser)
    _format(parser)


def _ui(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="open on this sweep")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=5000, help="port (default: 5000)")
    _store(parser)


def _delete(parser: Parser) -> None:
    _one_sweep(parser)
    parser.add_argument("--yes", action="store_true", help="do not ask")


def _upkeep(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="this sweep only")
    _store(parser)
    _format(parser)


def _doctor(parser: Parser) -> None:
    _upkeep(parser)
    parser.epilog = "Exit code 0 where nothing is wrong, notes included; 1 where something is."


def _repair(parser: Parser) -> None:
    _upkeep(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done; changes nothing")
    parser.epilog = "Exit code 0 where all is mended, 1 where something is left. What lives is never touched."


def _relocate(parser: Parser) -> None:
    _store(parser)
    _format(parser)


ARGUMENTS = {
    "sweep": _sweep,
    "status": _status,
    "runs": _runs,
    "best": _read_one,
    "diff": _diff,
    "report": _report,
    "reproduce": _reproduce,
    "confirm": _confirm,
    "export": _export,
    "train": _train,
    "summary": _summary,
    "predict": _predict,
    "ui": _ui,
    "delete": _delete,
    "doctor": _doctor,
    "repair": _repair,
    "relocate": _relocate,
}
