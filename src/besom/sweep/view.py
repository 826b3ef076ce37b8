"""A sweep's standing for a person: a picture of a few lines, redrawn in place, or one line of text."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial
from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from besom.sweep.pace import duration_text
from besom.sweep.standing import RunningTrial, Standing, point_text

BAR_WIDTH = 24
OTHER_LINES = 6
"""Lines of the picture beside those of running trials, with one to spare: what is higher than its terminal is cut."""


def picture(standing: Standing, height: int) -> Group:
    """Return the running trials, a bar and the best so far, at most ``height`` lines of a terminal."""
    counts = Text(_counts_text(standing), style="dim")
    lines = [_bar(standing), counts, *_best_lines(standing)]
    fitting = max(height - OTHER_LINES, 1)
    running = [_running_table(standing.running[:fitting])] if standing.running else []
    hidden = len(standing.running) - fitting
    more = [Text(f"and {hidden} more", style="dim")] if hidden > 0 else []
    return Group(*running, *more, *(_cut(line) if isinstance(line, Text) else line for line in lines))


def sentence(standing: Standing) -> str:
    """Return the standing on one line, for logs."""
    total = "" if standing.total is None else f"/{standing.total}"
    parts = [f"{standing.counts.counted}{total} ({_counts_text(standing)})"]
    parts += [_running_text(trial) for trial in standing.running]
    parts += [text for text in (best_text(standing.front), _time_text(standing)) if text]
    return "; ".join(parts)


def best_text(front: Sequence[FrozenTrial]) -> str:
    """Return the best so far without its point, of several objectives the size of the front; '' before there is any."""
    if front and len(front[0].values) > 1:
        return f"{len(front)} on the front"
    return f"best {values_text(front[0].values)}, trial {front[0].number}" if front else ""


def values_text(values: Sequence[float]) -> str:
    """Return objectives as people compare them, four digits each."""
    return ", ".join(f"{value:.4f}" for value in values)


def _running_table(running: Sequence[RunningTrial]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for title, style in (("running", "cyan"), ("epoch", ""), ("value", ""), ("time", "")):
        table.add_column(title, style=style, justify="right", no_wrap=True)
    table.add_column("point", style="dim")  # the one that gives way where a terminal is narrow
    for trial in running:
        value = "-" if trial.value is None else f"{trial.value:.4f}"
        epoch = "-" if trial.epoch is None else str(trial.epoch)
        table.add_row(str(trial.number), epoch, value, duration_text(trial.seconds), _cut(Text(trial.point)))
    return table


def _running_text(trial: RunningTrial) -> str:
    reported = "" if trial.value is None else f" epoch {trial.epoch} {trial.value:.4f}"
    return f"trial {trial.number}{reported}"


def _bar(standing: Standing) -> Table | Text:
    counted, times = standing.counts.counted, _time_text(standing)
    if standing.total is None:
        return Text(f"{counted} trials  {times}")
    line = Table.grid(padding=(0, 1))
    line.add_column(no_wrap=True)
    line.add_column(no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(total=max(standing.total, 1), completed=counted, width=BAR_WIDTH)
    line.add_row(bar, f"{counted}/{standing.total}  {times}")
    return line


def _time_text(standing: Standing) -> str:
    left = standing.left
    about = f", about {duration_text(left)} left" if left is not None and left >= 1 else ""  # 0: it takes longer
    return f"{duration_text(standing.elapsed)} elapsed{about}"


def _counts_text(standing: Standing) -> str:
    counts = standing.counts
    waiting = f", {standing.undelivered} not in MLflow yet" if standing.undelivered else ""
    return f"{counts.complete} complete, {counts.pruned} pruned, {counts.failed} failed{waiting}"


def _best_lines(standing: Standing) -> list[Text]:
    if not standing.front:
        return []
    best = standing.front[0]
    point = f": {point_text(best.params)}" if len(best.values) == 1 else ""
    return [Text(f"{best_text(standing.front)}{point}", style="green")]


def _cut(line: Text) -> Text:
    line.no_wrap, line.overflow = True, "ellipsis"
    return line
