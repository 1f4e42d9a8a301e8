"""Put the page together: one HTML file with everything in it, nothing fetched, everything from data escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from conceptcaps import schema
from conceptcaps.config.report import ReportConfig
from conceptcaps.report.gather import Row, attach_audio
from conceptcaps.report.media import excerpt, spectrogram, to_mp3
from conceptcaps.report.sections import Section
from conceptcaps.rundir import RunDir


@dataclass(frozen=True)
class Media:
    """A player's sound and picture, base64."""

    mp3: str
    png: str


def render(title: str, made: str, sections: Sequence[Section], examples: Sequence[Row], media: Sequence[Media]) -> str:
    """The page's HTML.

    Args:
        examples: rows with `id, status, reason, alignment_score, caption, aspect_list` and, for a row with a player,
            `media`, its position in `media`; `shard` where its audio lies.
    """
    environment = Environment(
        loader=PackageLoader("conceptcaps.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    source = environment.loader
    assert source is not None
    return environment.get_template("page.html.jinja").render(
        title=title,
        made=made,
        sections=sections,
        media=media,
        num_examples=len(examples),
        data=json_for_script([_example(row) for row in examples]),
        style=Markup(source.get_source(environment, "style.css")[0]),
        script=Markup(source.get_source(environment, "script.js")[0]),
        svg=Markup,
    )


def json_for_script(value: Any) -> Markup:
    """JSON that cannot close the script element it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"))


def _example(row: Row) -> dict[str, Any]:
    score = row["alignment_score"]
    return {
        "id": row["id"],
        "status": row["status"],
        "reason": row["reason"] or "",
        "score": None if score is None else round(score, 3),
        "caption": row["caption"] or "",
        "tags": row["aspect_list"] or [],
        "pair": row.get("pair_id") or "",
        "shard": row.get("shard", ""),
        "media": row.get("media"),
    }


def add_media(run: RunDir, examples: Sequence[Row], config: ReportConfig) -> list[Media]:
    """Sound and picture of the first examples that have audio, within the configured size; marks their rows."""
    wanted = [row for row in examples if row["status"] == schema.ACCEPTED][: config.num_audio]
    made: list[Media] = []
    size = 0.0
    for row, data in attach_audio(run, wanted):
        mono, rate = excerpt(data, config.audio_seconds)
        mp3 = base64.b64encode(to_mp3(mono, rate)).decode()
        size += len(mp3) / 2**20
        if size > config.audio_mb:
            break
        row["media"] = len(made)
        made.append(Media(mp3, base64.b64encode(spectrogram(mono, rate)).decode()))
    return made
