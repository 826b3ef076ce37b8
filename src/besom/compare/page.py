"""One HTML file with charts in it, that works without network: templates filled, everything escaped.

Knows nothing of what a page says.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from besom.compare.charts import Chart
from besom.compare.interactive import figure
from besom.compare.trials import SweepTrials

WIDE = ("parallel_coordinates", "slice")
"""Charts that a narrow screen scrolls instead of squeezing."""


def charts_page(trials: SweepTrials, charts: Sequence[Chart]) -> str:
    """Return a page of charts alone."""
    return filled("charts.html.j2", charts, trials=trials)


def filled(template: str, charts: Sequence[Chart], **values: Any) -> str:
    """Return a template filled, with its charts and all that draws them inside."""
    environment = Environment(
        loader=PackageLoader("besom.compare"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(
        charts=charts,
        wide=WIDE,
        style=_asset("style.css"),
        draw=_asset("draw.js"),
        plotly=Markup((files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")),
        figures=_json({chart.slug: figure(chart) for chart in charts}),
        **values,
    )


def _asset(name: str) -> Markup:
    return Markup((files("besom.compare") / "templates" / name).read_text(encoding="utf-8"))


def _json(value: Any) -> Markup:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))
