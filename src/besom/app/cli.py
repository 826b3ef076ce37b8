"""The command line: names, flags and exit codes that scripts rely on.

Every command is a few lines in `besom.app.commands` or, if it only looks, in `besom.app.showing`.

Exit codes: 0 good; 1 ran and found a failure; 2 the input is wrong; 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP. Heavy
modules are imported by the command that needs them, so that ``--help`` is quick.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from besom import __version__
from besom.app.arguments import ARGUMENTS, Parser
from besom.disk import explain
from besom.errors import BesomError, ConfigError, one_of, quoted, shown
from besom.signals import ended_by_signals, exit_code_of, interruption_behind
from besom.withheld import be_discreet, withheld

SUMMARIES = {
    "sweep": "start or resume a sweep; without a name, list the sweeps",
    "status": "counts by state of a sweep, what runs, its best trial, its last error",
    "runs": "the trials of a sweep as a table, CSV or JSON",
    "best": "the best trial of a sweep",
    "diff": "what differs between two runs: config, metrics, fingerprint, hashes",
    "report": "one self-contained HTML page about a sweep, and its trials as CSV",
    "reproduce": "run a trial again in a fresh process and compare, bit for bit",
    "confirm": "is the winner real: leaders again with new seeds, compared, then the test set, once",
    "export": "a run as a folder with which anybody can train it again",
    "train": "one tracked run of the config",
    "summary": "the layers of a config: shapes, filters, parameters",
    "predict": "the first five predictions of a trial beside the truth",
    "ui": "the MLflow UI on the store",
    "delete": "remove a sweep wholly",
    "doctor": "check the store, its sweeps, this machine; only reads",
    "repair": "close what died, bring MLflow after the study, remove what a kill left",
    "relocate": "mend a store that was moved or copied",
}
SHOWING = ("status", "runs", "best", "diff")
"""The commands that only look; the others work."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code."""
    be_discreet()
    with ended_by_signals():
        code = run(list(sys.argv[1:] if arguments is None else arguments))
    gc.freeze()  # at its end Python looks for garbage several times; among all that MLflow imports it takes 0.3 s
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code; every error besom raises is one line on stderr."""
    debug = "--debug" in arguments
    try:
        return dispatch([argument for argument in arguments if argument != "--debug"])
    except KeyboardInterrupt as error:
        return _interrupted(error)
    except BrokenPipeError:  # `besom runs NAME | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if debug:
            sys.stderr.write(withheld("".join(traceback.format_exception(error))))
        if not isinstance(error, BesomError) and (interruption := interruption_behind(error)) is not None:
            return _interrupted(interruption)
        return _told(explain(error) or error, debug=debug)


def _interrupted(error: KeyboardInterrupt) -> int:
    sys.stderr.write("besom: interrupted\n")
    return exit_code_of(error)


def _told(error: Exception, *, debug: bool) -> int:
    """Say in one line what went wrong; return the exit code."""
    reason = withheld(shown(error))
    if isinstance(error, BesomError):
        sys.stderr.write(f"besom: {reason}\n")
        return error.exit_code
    if not debug:  # not foreseen: of a user's own code, a library, or besom's mistake
        sys.stderr.write(f"besom: {type(error).__name__}: {reason}; --debug shows where it came from\n")
    return 1


def dispatch(arguments: list[str]) -> int:
    """Find the command and hand it its parsed arguments."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stdout.write(overview())
        return 0
    _refuse_no_text(arguments)
    name, *rest = arguments
    if name in ("-V", "--version"):
        sys.stdout.write(f"besom {__version__}\n")
        return 0
    if name not in SUMMARIES:
        raise ConfigError(one_of("command", name, SUMMARIES))
    parsed = parser_of(name).parse_intermixed_args(rest)
    module = importlib.import_module(f"besom.app.{'showing' if name in SHOWING else 'commands'}")
    code: int = getattr(module, name)(parsed)
    return code


def _refuse_no_text(arguments: Sequence[str]) -> None:
    """Refuse what is no UTF-8: Python hands it on as half characters, which no database and no file takes."""
    for argument in arguments:
        if not argument.isprintable() and argument.encode(errors="ignore").decode() != argument:
            raise ConfigError(f"the argument {quoted(argument)} is no UTF-8 text; expected one that is")


def overview() -> str:
    """Return what ``besom --help`` prints."""
    lines = [f"  besom {name:<10} {summary}" for name, summary in SUMMARIES.items()]
    return (
        "usage: besom COMMAND [ARGUMENTS]\n\n"
        "Experiment-tracked hyperparameter sweeps that survive kill -9, never train a configuration\n"
        "twice and prove their best trial by running it again.\n\n" + "\n".join(lines) + "\n\n"
        "'besom COMMAND --help' says more; --debug shows tracebacks. Exit codes: 0 good, 1 a failure was found,\n"
        "2 the input is wrong, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.\n"
    )


def parser_of(name: str) -> Parser:
    """Return the parser of one command."""
    parser = Parser(prog=f"besom {name}", description=f"{SUMMARIES[name][0].upper()}{SUMMARIES[name][1:]}.")
    ARGUMENTS[name](parser)
    return parser
