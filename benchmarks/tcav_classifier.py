"""How well the genre classifier hears a folder of GTZAN's shape: ten rendered genres of a hundred clips, one corrupt.

    python benchmarks/tcav_classifier.py [--per-genre 100] [--set tcav.classifier.KEY=VALUE ...]

Rendered, because GTZAN cannot be shipped; the fit, the split and the settings are those of stage `tcav`. Accuracy is
that of test clips, which nothing was chosen on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine

from conceptcaps import signal
from conceptcaps.config import Config, load
from conceptcaps.pipelines.tcav import CLASSIFIER, fit_classifier
from conceptcaps.pipelines.tcav_clips import LabelledClips, labelled_clips, render_folder
from conceptcaps.rundir import RunDir
from conceptcaps.runtime import connect
from conceptcaps.tcav.adapter import of_genre_classifier
from conceptcaps.tcav.significance import wilson_interval

RESULTS = Path(__file__).parent / "results" / "tcav_classifier.json"


def logits_of(config: Config, run: RunDir, paths: list[str]) -> np.ndarray:
    """float32 (num_clips, num_classes) of the clips' middles."""
    adapter = of_genre_classifier(run.read_bytes(*CLASSIFIER), config.tcav.classifier.duration)
    adapter.model.eval()
    found = []
    with torch.inference_mode():
        for path in paths:
            wave, rate = signal.decode(Path(path).read_bytes())
            mono = signal.downmix(signal.resample(wave, rate, adapter.sampling_rate))
            found.append(adapter.model(adapter.prepare([mono])).numpy()[0])
    return np.stack(found)


def measure(config: Config, run: RunDir, clips: LabelledClips) -> dict[str, object]:
    started = time.perf_counter()
    _, unreadable = fit_classifier(config, run, clips)
    seconds = time.perf_counter() - started
    test = [path for path in clips.ids("test") if path not in unreadable]
    labels = np.array([clips.label[path] for path in test])
    predicted = logits_of(config, run, test).argmax(1)
    low, high = wilson_interval(np.array((labels == predicted).mean()), np.array(len(test)))
    return {
        "accuracy": float((labels == predicted).mean()),
        "interval_95": [float(low), float(high)],
        "test_clips": len(test),
        "training_clips": len(clips.ids("train")),
        "chance": 1 / len(clips.classes),
        "by_genre": {name: float((predicted == k)[labels == k].mean()) for k, name in enumerate(clips.classes)},
        "unreadable_clips_named": len(unreadable),
        "epochs": len(run.read_json("tcav", "history.json")),
        "seconds_to_decode_and_fit": round(seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-genre", type=int, default=100)
    parser.add_argument("--set", nargs="*", default=[], dest="overrides")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tcav-classifier-") as folder:
        run = RunDir(folder)
        connect(load(None, ["ray.num_cpus=2"]).ray, quiet=True)
        rendered = render_folder(run, 0, options.per_genre)
        (rendered / "jazz" / "jazz-00000.wav").write_bytes(b"RIFF, and no more")
        config = load(None, [f"tcav.clips={rendered}", "ray.num_cpus=2", *options.overrides])
        found = measure(config, run, labelled_clips(config, run, None))
    result = {"machine": describe_machine(), "settings": config.tcav.classifier.model_dump(mode="json"), **found}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
