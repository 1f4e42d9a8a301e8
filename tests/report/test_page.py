"""The page: whole, escaped, self-contained; opened, played and filtered in a browser where there is one."""

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from browser import CHROMIUM, visit
from synthetic import rows, tags_of, write_run, write_shards

from conceptcaps import schema
from conceptcaps.config import load
from conceptcaps.errors import InputError
from conceptcaps.pipelines.report import project, run_report
from conceptcaps.report.page import json_for_script
from conceptcaps.rundir import Manifest, RunDir

NASTY = "</script><script>window.broken = 1</script><img src=x onerror=alert(1)>"


def write_table(run, made, folder, name):
    run.fs.create_dir(run.path(folder), recursive=True)
    pq.write_table(pa.Table.from_pylist(made), run.path(folder, name))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run with everything that the page can show, and a caption that tries to break it."""
    run = write_run(tmp_path_factory.mktemp("page") / "run", 60)
    made = rows(60)
    first = next(row for row in made if row["status"] == schema.ACCEPTED)
    first["caption"] = NASTY
    write_shards(run, made)
    null = np.random.default_rng(0).normal(0.1, 0.1, 50).tolist()
    run.write_json(
        {"threshold": 0.28, "null_scores": null, "matched_scores": [0.4, 0.5]}, "alignment", "calibration.json"
    )
    write_table(run, [{"aspect_list": tags_of(i, 7)} for i in range(50)], "taxonomy/rows", "part.parquet")
    effect = {"concept": "rock", "class": "metal", "layer": "deep", "effect_sd": 0.5, "low": 0.4, "high": 0.6}
    write_table(run, [effect | {"verdict": "used"}], "tcav", "effects.parquet")
    run.write_json({"layers": {"deep": {}}}, "tcav", "results.json")
    figure = {"sampler": "specs", "metric": "size_wasserstein", "value": 0.2, "low": 0.1, "high": 0.3, "floor": 0.1}
    write_table(run, [figure | {"verdict": "near floor"}], "comparison", "figures.parquet")
    run_report(load(None, ["name=A & B <run>", "report.num_audio=12"]), run)
    return run


@pytest.fixture(scope="module")
def page(run):
    return run.read_bytes("report", "index.html").decode()


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.scripts = [], 0

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        self.found += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "poster")]


def test_nothing_is_fetched(page):
    links = Links()
    links.feed(page)
    assert all(link.startswith(("#", "data:")) for link in links.found)
    assert "url(" not in page.split("</style>")[0]
    assert "default-src 'none'" in page


def test_text_from_data_is_escaped(page):
    assert NASTY not in page
    assert "<title>A &amp; B &lt;run&gt;: report</title>" in page
    links = Links()
    links.feed(page)
    assert links.scripts == 2 + 2 * 12  # data, script, and two texts per player
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])
    assert NASTY in {row["caption"] for row in data}


def test_json_cannot_close_its_script():
    text = json_for_script({"a": NASTY + "\u2028"})
    assert "<" not in text
    assert json.loads(text) == {"a": NASTY + "\u2028"}


def test_every_section_has_its_figure(page):
    for name in ("tags", "sizes", "together", "words", "alignment", "tcav", "tcav-bars", "throughput"):
        assert f'id="figure-{name}"' in page
    assert "size_wasserstein" in page
    assert "alignment.below_threshold" in page


def test_a_bare_run_says_what_is_absent(tmp_path):
    run = RunDir(tmp_path)
    write_shards(run, [{**row, "audio": None} for row in rows(20) if row["status"] != schema.ACCEPTED])
    facts = run_report(load(None), run)
    text = html.unescape(run.read_bytes("report", "index.html").decode())
    assert facts["counts"]["players"] == 0
    for line in (
        "No accepted row has a caption.",
        "No fitted model of tag sets in this run (vae/model.safetensors).",
        "No comparison in this run (comparison/figures.parquet).",
        "The audio was not measured (stage quality).",
        "No concept effects in this run (tcav/effects.parquet).",
        "No source rows to compare with",
        "The threshold was not calibrated",
    ):
        assert line in text


def test_a_stage_left_out_says_why(tmp_path):
    run = write_run(tmp_path / "run", 20)
    Manifest(run).leave_out("tcav", "stage 'tcav' has 1 genre with 20 rows")
    run_report(load(None), run)
    text = html.unescape(run.read_bytes("report", "index.html").decode())
    assert "This stage was left out: stage 'tcav' has 1 genre with 20 rows" in text


def test_no_shards_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="holds no Parquet files"):
        run_report(load(None), RunDir(tmp_path))


def test_audio_stops_at_its_budget(tmp_path):
    run = write_run(tmp_path / "run", 60)
    facts = run_report(load(None, ["report.audio_mb=0.02"]), run)
    assert 0 < facts["counts"]["players"] < 20


def test_projection_keeps_distances_of_a_plane():
    rng = np.random.default_rng(0)
    plane = rng.normal(size=(40, 2)) * (3, 1)
    basis = np.linalg.qr(rng.normal(size=(5, 2)))[0].T
    found = project(plane @ basis, ["rock"] * 40)
    assert np.allclose(np.linalg.norm(found.points, axis=1), np.linalg.norm(plane - plane.mean(0), axis=1))
    assert sum(found.explained) == pytest.approx(1)


SCRIPT = """
const found = () => document.getElementById("found").textContent;
const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", {key, bubbles: true}));
const outcome = {broken: window.broken === 1, all: found()};
const audio = document.querySelector("audio");
await audio.play();
while (audio.currentTime === 0 && !audio.ended) await new Promise((next) => setTimeout(next, 20));
outcome.duration = audio.duration;
audio.pause();
press("/");
outcome.focused = document.activeElement.id;
document.querySelector(".tag").click();
outcome.filtered = found();
outcome.unfiltered = [...document.querySelectorAll(".row")].filter(
  (row) => !row.querySelector('.tag[aria-pressed="true"]')).length;
press("Escape");
outcome.cleared = found();
const query = document.getElementById("query");
query.value = "onerror=alert";
query.dispatchEvent(new Event("input"));
await new Promise((next) => setTimeout(next, 300));
outcome.searched = found();
const status = document.getElementById("status");
press("Escape");
status.value = "rejected";
status.dispatchEvent(new Event("change"));
outcome.rejected = [...document.querySelectorAll(".row")].every((row) => row.classList.contains("rejected"));
const before = getComputedStyle(document.body).backgroundColor;
document.getElementById("theme").click();
outcome.themes = [before, getComputedStyle(document.body).backgroundColor];
return outcome;
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the page")
def test_in_a_browser(run, tmp_path):
    seen = visit(Path(run.path("report", "index.html")), SCRIPT, tmp_path)
    assert seen.complaints == []
    assert seen.requests == []
    outcome = seen.value
    assert not outcome["broken"]
    assert outcome["duration"] == pytest.approx(0.25, abs=0.1)
    assert outcome["focused"] == "query"
    assert outcome["all"] == outcome["cleared"] == "60 of 60 rows"
    assert 0 < int(outcome["filtered"].split()[0]) < 60
    assert outcome["unfiltered"] == 0
    assert outcome["searched"] == "1 of 60 rows"
    assert outcome["rejected"]
    assert outcome["themes"][0] != outcome["themes"][1]


def test_page_is_where_the_command_line_looks(run):
    assert Path(run.path("report", "index.html")).is_file()
