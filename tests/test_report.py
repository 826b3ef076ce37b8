"""`besom report`: one file that stands alone, says what was found, and lets nothing of a trial become markup."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import BesomCommand
from PIL import Image
from stored import store_in, study_in, trial

from besom.compare.champion_page import ChampionPage
from besom.compare.report import Known, report

VOID = {"meta", "link", "img", "br"}
HOSTILE = "<script>alert('x')</script>&<img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the texts between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes what is not open"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def sweep_of(folder: Path, n: int, **facts: Any) -> optuna.Study:
    study = study_in(store_in(folder), total=n)
    study.set_user_attr("settings", {"train.objective": "val_accuracy"})
    for number in range(n):
        params = {
            "model.activation": ("relu", "swish", "tanh")[number % 3],
            "model.conv.0.filters": 1 + number % 64,
            "train.learning_rate": 10 ** (-1 - number * 0.37 % 4),
        }
        value = 0.9 + (number * 0.618 % 1) / 20
        own = {"n_params": 1000 * (1 + number % 64), "n_macs": 5000, "fit_seconds": 7.5, "n_val": 500, **facts}
        reports = [value - 0.05, value - 0.02, value - 0.01, value]
        study.add_trial(trial("complete", [value], params, reports=reports, seconds=8, ago=5 * (n - number), **own))
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> optuna.Study:
    made = sweep_of(tmp_path_factory.mktemp("report"), 100)
    made.add_trial(trial("failed", params={"model.activation": "relu"}, reason=HOSTILE))
    return made


@pytest.fixture(scope="module")
def html(study: optuna.Study) -> str:
    return report(study, Known(question=f"Which filters? {HOSTILE}"))


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_a_page_of_100_trials_is_small_enough_to_be_mailed(html: str) -> None:
    assert len(html.encode()) < 5.5e6  # the pictures of a champion take up to half a megabyte more; 6 are promised


def test_every_element_is_closed_where_it_was_opened(page: Page) -> None:
    assert page.open == []


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    addresses = [found[key] for _, found in page.elements for key in ("src", "href", "action", "data") if key in found]
    assert addresses
    assert not [address for address in addresses if not address.startswith(("#", "data:"))]


def test_what_a_trial_says_of_itself_is_text(page: Page) -> None:
    assert any(HOSTILE in text for text in page.texts)
    assert not page.all("img")
    assert [script.get("type") for script in page.all("script")] == ["application/json", None, None]


def test_every_link_of_the_page_leads_somewhere(page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    links = [link["href"][1:] for link in page.all("a")]
    assert {"leaderboard", "cost", "charts", "failures", "reproduce"} <= set(links) <= ids


def test_every_chart_has_a_place_a_figure_and_words_for_who_cannot_see_it(html: str, page: Page) -> None:
    found = re.search(r'id="figures">(.*?)</script>', html, re.DOTALL)
    assert found
    figures = json.loads(found[1])
    places = [place for place in page.all("div") if place.get("role") == "img"]
    assert [place["id"] for place in places] == [f"chart-{slug}" for slug in figures]
    assert len(figures) == 7
    assert all(len(place["aria-label"]) > 30 for place in places)


def test_the_page_can_be_read_by_who_hears_it(html: str, page: Page) -> None:
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == len(page.all("main")) == 1
    assert all(cell.get("scope") == "col" for cell in page.all("th"))
    assert len(page.all("caption")) == len(page.all("table"))
    assert '<meta name="viewport"' in html


def test_the_verdict_comes_first_and_the_winner_stands_out(study: optuna.Study, page: Page) -> None:
    best = study.best_trial.number
    first = next(text for text in page.texts if text.startswith("Trial "))
    assert first.startswith(f"Trial {best} won with val_accuracy")
    assert {"class": "best"} in page.all("tr")


def test_the_pictures_of_the_champion_are_inside(study: optuna.Study, tmp_path: Path) -> None:
    layers = [f"filters/conv_{n}" for n in (0, 1, 10)]
    for name in ("confusion_matrix", "learning_curve", "mistakes", *layers, "feature_maps/conv_0"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(tmp_path / f"{name}.png")
    (tmp_path / "layers.csv").write_text("name,params\nconv_0,78\n")
    champion = ChampionPage.read(tmp_path, "abc", {"weights_sha256": "f" * 64, "fingerprint.cpu": "x"})
    page = Page(report(study, Known(champion)))
    images = page.all("img")
    assert all(image["src"].startswith("data:image/png;base64,") for image in images)
    assert all((image["width"], image["height"]) == ("40", "30") for image in images)
    texts = [image["alt"] for image in images]
    assert len(texts) == 7
    assert [text for text in texts if text.startswith("The filters of")] == [
        f"The filters of conv_{n}: each is a block of weights as deep as the layer's input has channels"
        for n in (0, 1, 10)
    ]
    assert "f" * 64 in page.texts


def test_a_sweep_without_a_complete_trial_says_so(tmp_path: Path) -> None:
    page = Page(report(study_in(store_in(tmp_path)), Known()))
    assert "No trial of sweep toy is complete yet." in page.texts
    assert "besom sweep toy" in "".join(page.texts)
    assert [script.get("type") for script in page.all("script")] == ["application/json"]


def test_the_command_writes_the_page_and_the_trials_beside_it(tmp_path: Path, besom_command: BesomCommand) -> None:
    sweep_of(tmp_path, 3)
    done = besom_command("report", "toy", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    files = json.loads(done.stdout)
    assert files == {
        "page": str(tmp_path / "mlruns/reports/toy.html"),
        "table": str(tmp_path / "mlruns/reports/toy.csv"),
    }
    assert "<title>Sweep toy</title>" in Path(files["page"]).read_text(encoding="utf-8")
    with Path(files["table"]).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["number"]) for row in rows] == [1, 2, 0]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["report", "toys"], "no sweep 'toys'"),
        (["report", "toy", "-o", "page.pdf"], "expected a name that ends with .html"),
        (["report", "toy", "-o", "mlruns/mlflow.db/page.html"], "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_said(
    tmp_path: Path, besom_command: BesomCommand, arguments: list[str], reason: str
) -> None:
    sweep_of(tmp_path, 2)
    done = besom_command(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert reason in done.stderr
    assert not (tmp_path / "mlruns" / "reports").exists()
