from __future__ import annotations

import json
import re
from pathlib import Path

DASHBOARD = json.loads((Path(__file__).resolve().parents[2] / "cluster" / "grafana" / "conceptcaps.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
OURS = {"ray_conceptcaps_rows_total", "ray_conceptcaps_stage_seconds"}


def test_panels_do_not_overlap_and_are_told_apart():
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def test_every_metric_is_ours_or_one_of_rays():
    from ray.dashboard.modules.metrics import dashboards

    folder = Path(dashboards.__path__[0])
    rays = " ".join(path.read_text() for path in folder.glob("*.py")).replace("{{{global_filters}", " ")
    for expression in EXPRESSIONS:
        for metric in re.findall(r"\bray_\w+", expression):
            base = re.sub(r"(_bucket|_sum|_count)$", "", metric)
            assert base in OURS or metric in rays, metric


def test_braces_balance_and_every_query_can_be_narrowed_to_a_session():
    for expression in EXPRESSIONS:
        assert expression.count("(") == expression.count(")")
        assert expression.count("{") == expression.count("}")
        metrics = len(re.findall(r"\bray_\w+", expression))
        assert expression.count('SessionName=~"$session"') == metrics
