"""The dataset card: README.md with the front matter the hub reads, written from what the run recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from conceptcaps.config import Config
from conceptcaps.config.dataset import DatasetConfig
from conceptcaps.dataset.layout import Part, output_schema, parts
from conceptcaps.dataset.splits import SPLITS
from conceptcaps.provenance import models
from conceptcaps.rundir import Manifest, RunDir

if TYPE_CHECKING:
    from datasets import Features

CARD = "README.md"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


def hub_features(config: DatasetConfig, audio: bool) -> Features:
    """The columns of a config as `datasets` knows them; the audio column is an Audio feature."""
    from datasets import Audio, Features

    features = Features.from_arrow_schema(output_schema(config.audio_column if audio else None))
    if audio:
        features[config.audio_column] = Audio()
    return features


def write_card(config: Config, run: RunDir, folder: str, statistics: dict[str, Any]) -> None:
    """Write README.md below `folder` of the run."""
    text = f"---\n{front_matter(config, run, folder, statistics)}\n---\n\n{body(config, run, statistics)}"
    run.write_bytes(text.encode(), folder, CARD)


def front_matter(config: Config, run: RunDir, folder: str, statistics: dict[str, Any]) -> str:
    """YAML: licence, sizes, and for each config its files, features and split sizes."""
    from datasets.info import DatasetInfosDict
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        language=["en"],
        license=config.dataset.licence,
        annotations_creators=["machine-generated"],
        language_creators=["machine-generated"],
        size_categories=[next((name for most, name in _SIZES if statistics["rows"] < most), "n>1M")],
        task_categories=["text-to-audio", "audio-classification"],
        tags=["music", "audio", "captions", "concepts", "interpretability", "tcav", "synthetic"],
        pretty_name=config.name,
    )
    infos = {
        part.name: _info(config.dataset, part, statistics, _file_bytes(run, folder, part))
        for part in parts(config.dataset)
    }
    files = {
        part.name: {"data_files": [{"split": split, "path": f"{part.name}/{split}-*"} for split in SPLITS]}
        for part in parts(config.dataset)
    }
    DatasetInfosDict(infos).to_dataset_card_data(data)
    MetadataConfigs(files).to_dataset_card_data(data)
    return data.to_yaml()


def _info(config: DatasetConfig, part: Part, statistics: dict[str, Any], download_size: int) -> Any:
    from datasets import DatasetInfo, SplitDict, SplitInfo

    splits = SplitDict(dataset_name=part.name)
    for name, facts in statistics["configs"][part.name].items():
        splits.add(SplitInfo(name, num_bytes=facts["bytes"], num_examples=facts["rows"]))
    return DatasetInfo(
        features=hub_features(config, part.audio),
        splits=splits,
        download_size=download_size,
        dataset_size=sum(s.num_bytes for s in splits.values()),
        config_name=part.name,
    )


def _file_bytes(run: RunDir, folder: str, part: Part) -> int:
    paths = run.files(folder, part.name, suffix=".parquet")
    return sum(info.size for info in run.fs.get_file_info(paths))


def body(config: Config, run: RunDir, statistics: dict[str, Any]) -> str:
    """The card's text in Markdown."""
    environment = Environment(
        loader=PackageLoader("conceptcaps.dataset", "templates"),
        undefined=StrictUndefined,
        autoescape=False,  # Markdown, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
    )
    manifest = Manifest(run)
    return environment.get_template("card.md.jinja").render(
        config=config,
        statistics=statistics,
        manifest=manifest.data,
        counts=manifest.stage("generate").get("counts", {}),
        models=manifest.stage("generate").get("models") or models(config),
        concepts=sorted(statistics["tags"].items(), key=lambda item: -sum(item[1].values())),
        splits=SPLITS,
        audio_column=config.dataset.audio_column,
        has_calibration=run.exists("alignment", "calibration.json"),
    )
