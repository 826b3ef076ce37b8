"""The command line: names, flags and exit codes that scripts rely on.

Every command is a few lines in `besom.app.commands`.

Exit codes: 0 good; 1 ran and found a failure; 2 the input is wrong; 130 Ctrl-C. Heavy modules are
imported by the command that needs them, so that ``--help`` is quick.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from besom import __version__
from besom.errors import BesomError, ConfigError, one_of

FORMATS = ("table", "csv", "json")
VERDICTS = ("bit-identical", "same-predictions", "within-noise", "different")
SUMMARIES = {
    "sweep": "start or resume a sweep; without a name, list the sweeps",
    "status": "counts by state of a sweep, its best trial, its last error",
    "runs": "the trials of a sweep as a table, CSV or JSON",
    "best": "the best trial of a sweep",
    "reproduce": "run a trial again in a fresh process and compare, bit for bit",
    "train": "one tracked run of the config",
    "summary": "the layers of a config: shapes, filters, parameters",
    "predict": "the first five predictions of a trial beside the truth",
    "ui": "the MLflow UI on the store",
    "delete": "remove a sweep wholly",
}


class Parser(argparse.ArgumentParser):
    """argparse with besom's own error lines."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see '{self.prog} --help'")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    code = run(list(sys.argv[1:] if arguments is None else arguments))
    gc.freeze()  # at its end Python looks for garbage several times; among all that MLflow imports it takes 0.3 s
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error besom raises is one line on stderr."""
    debug = "--debug" in arguments
    try:
        return dispatch([argument for argument in arguments if argument != "--debug"])
    except KeyboardInterrupt:
        sys.stderr.write("besom: interrupted\n")
        return 130
    except BrokenPipeError:  # `besom runs NAME | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BesomError as error:
        if debug:
            traceback.print_exc()
        sys.stderr.write(f"besom: {' '.join(str(error).split())}\n")
        return error.exit_code
    except Exception as error:  # not foreseen: of a user's own code, a library, or besom's mistake
        if debug:
            traceback.print_exc()
        else:
            reason = " ".join(str(error).split())
            sys.stderr.write(f"besom: {type(error).__name__}: {reason}; --debug shows where it came from\n")
        return 1


def dispatch(arguments: list[str]) -> int:
    """Find the command and hand it its parsed arguments."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(overview())
        return 0
    name, *rest = arguments
    if name in ("-V", "--version"):
        sys.stdout.write(f"besom {__version__}\n")
        return 0
    if name not in SUMMARIES:
        raise ConfigError(one_of("command", name, SUMMARIES))
    parsed = parser_of(name).parse_intermixed_args(rest)
    from besom.app import commands

    code: int = getattr(commands, name)(parsed)
    return code


def overview() -> str:
    """Return what ``besom --help`` prints."""
    lines = [f"  besom {name:<10} {summary}" for name, summary in SUMMARIES.items()]
    return (
        "usage: besom COMMAND [ARGUMENTS]\n\n"
        "Experiment-tracked hyperparameter sweeps that survive kill -9, never train a configuration\n"
        "twice and prove their best trial by running it again.\n\n" + "\n".join(lines) + "\n\n"
        "'besom COMMAND --help' says more; --debug shows tracebacks. Exit codes: 0 good, 1 a failure was found,\n"
        "2 the input is wrong, 130 Ctrl-C.\n"
    )


def parser_of(name: str) -> Parser:
    """Return the parser of one command."""
    parser = Parser(prog=f"besom {name}", description=f"{SUMMARIES[name][0].upper()}{SUMMARIES[name][1:]}.")
    _ARGUMENTS[name](parser)
    return parser


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
    parser.add_argument("--engine", metavar="NAME", help="what runs the trials: lanes (hydra/launcher)")
    parser.add_argument("--name", metavar="NAME", help="run it under this name (hydra.sweeper.study_name)")
    parser.add_argument("--fresh", action="store_true", help="delete what there is under the name and start over")
    parser.add_argument(
        "--dry-run", action="store_true", help="size of the space, first points, estimate; starts nothing"
    )
    _format(parser)


def _train(parser: Parser) -> None:
    _overrides(parser)
    parser.add_argument("-m", "--multirun", action="store_true", help="one run for each combination, as in Hydra")


def _runs(parser: Parser) -> None:
    _one_sweep(parser)
    _format(parser)
    parser.add_argument("--all", action="store_true", help="every column, and attempts that died with their lane")


def _read_one(parser: Parser) -> None:
    _one_sweep(parser)
    _format(parser)


def _reproduce(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN|SWEEP", help="an MLflow run id, or a sweep's name for its best trial")
    parser.add_argument("--accept", choices=VERDICTS, default="bit-identical", help="exit 0 up to this verdict")
    parser.add_argument(
        "--allow", action="append", default=[], metavar="PACKAGE", help="let the run's config import PACKAGE"
    )
    _store(parser)
    _format(parser)


def _summary(parser: Parser) -> None:
    _overrides(parser)
    _format(parser)


def _predict(parser: Parser) -> None:
    parser.add_argument("run", metavar="RUN|SWEEP", help="an MLflow run id, or a sweep's name for its best trial")
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


_ARGUMENTS = {
    "sweep": _sweep,
    "status": _read_one,
    "runs": _runs,
    "best": _read_one,
    "reproduce": _reproduce,
    "train": _train,
    "summary": _summary,
    "predict": _predict,
    "ui": _ui,
    "delete": _delete,
}
