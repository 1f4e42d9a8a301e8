"""The embedded CLAP as a filter of procedural clips of real tag sets, and batched scoring against one by one.

    python benchmarks/clap.py DISTILLED_CSV TAXONOMY_JSON [--clips 300]

Real tag sets are captioned by the grammar and played by the procedural synthesiser. Printed and kept: how matched pairs
stand against mismatched ones; for each tag with enough clips, how the margins of tag verification tell clips that carry
it from clips that do not, by the rows' tags and by what was rendered; what the signal checks and the calibrated
threshold together reject of sound clips and of spoiled ones; and clips per second against transformers' extractor,
tokenizer and model called clip by clip, in turn.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from sklearn.metrics import roc_auc_score
from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

from conceptcaps import signal
from conceptcaps.alignment.clap import EMBEDDED, ClapAligner, load_checkpoint
from conceptcaps.alignment.tags import embed_tags, margins, tag_scores
from conceptcaps.alignment.threshold import Means, calibrate
from conceptcaps.assets.clap_quality import retrieval, separation
from conceptcaps.audio.arrangement import Arrangement, arrange
from conceptcaps.audio.checks import Measures, problem
from conceptcaps.audio.keywords import read
from conceptcaps.audio.procedural import ProceduralSynthesiser
from conceptcaps.captions.grammar import GrammarCaptioner
from conceptcaps.captions.lora import read_pairs, row_tags
from conceptcaps.config.alignment import AlignmentConfig
from conceptcaps.config.audio import AudioConfig
from conceptcaps.seeding import derive, generator
from conceptcaps.vocabulary import Vocabulary

RESULTS = Path(__file__).parent / "results" / "clap.json"
ENOUGH = 10  # clips with a tag, and without, from which its separation is measured
NONE = "no percussion"
TEMPI = {"slow": ("slow tempo",), "fast": ("fast tempo", "uptempo", "upbeat")}
CALIBRATION, CALIBRATIONS, TIMED = 64, 20, 32
DEFAULT = AlignmentConfig().threshold.quantile
WAYS = {"centred": (DEFAULT, True), "plain": (DEFAULT, False), "centred, quantile 0.96": (0.96, True)}
"""Of the threshold: quantile of mismatched pairs, and whether means are taken off."""
SWAPPED = "swapped captions"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pairs", help="CSV with `caption` and `<category>_tags`")
    parser.add_argument("taxonomy", type=Path, help="concepts_to_tags.json that the tags are from")
    parser.add_argument("--clips", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    vocabulary = Vocabulary.from_json(arguments.taxonomy.read_bytes(), str(arguments.taxonomy))
    sets = tag_sets(arguments, vocabulary)
    audio = AudioConfig(duration=arguments.seconds)
    synthesiser, aligner = ProceduralSynthesiser(audio), ClapAligner(AlignmentConfig())
    seeds = [derive(arguments.seed, "row", i) for i in range(len(sets))]
    waves = synthesiser({"seed": seeds, "aspect_list": sets})
    captions = GrammarCaptioner()({"seed": seeds, "aspect_list": sets})
    heard, text = aligner.embed_audio(waves, synthesiser.sampling_rate), aligner.embed_text(captions)
    result: dict[str, Any] = {"machine": describe_machine(), "num_clips": len(sets), "seconds": arguments.seconds}
    result["pairs"] = {"auc": separation(heard @ text.T)} | retrieval(heard @ text.T)
    rows = vocabulary.encode(sets)
    found = margins(tag_scores(heard, embed_tags(aligner, vocabulary)), rows, vocabulary)
    clips = [arrange(tags, seed) for tags, seed in zip(sets, seeds, strict=True)]
    result["tags"] = verification(found, rows, vocabulary) | rendered(found, rows, vocabulary, clips)
    means = Means.of(heard[:CALIBRATION], text[:CALIBRATION])
    heard_centred, text_centred = means.taken_off(heard, text)
    result["pairs"]["auc as the filter scores them"] = separation(heard_centred @ text_centred.T)
    result["filter"] = spoiled(aligner, synthesiser, audio, waves, heard, text, captions)
    with tempfile.TemporaryDirectory() as folder:
        models = {"packaged": EMBEDDED, "published sizes": write_htsat(Path(folder))}
        few = waves[:TIMED], synthesiser.sampling_rate, captions[:TIMED]
        result["speed"] = {name: speed(source, *few) for name, source in models.items()}
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


def tag_sets(arguments: argparse.Namespace, vocabulary: Vocabulary) -> list[list[str]]:
    """Distinct sets of known tags, in an order drawn by the seed."""
    known = {tuple(tag for tag in row_tags(row) if tag in vocabulary.index) for row in read_pairs(arguments.pairs)}
    several = sorted(tags for tags in known if len(tags) >= 3)
    order = generator(arguments.seed, "clap").permutation(len(several))
    return [list(several[i]) for i in order[: arguments.clips]]


def verification(found: np.ndarray, rows: np.ndarray, vocabulary: Vocabulary) -> dict[str, Any]:
    """Area under the ROC curve of each tag's margin, by category, and of fast against slow."""
    areas: dict[str, dict[str, float]] = {}
    for tag, at in vocabulary.index.items():
        heard = np.isfinite(found[:, at])
        present = rows[heard, at] > 0
        if min(present.sum(), (~present).sum()) >= ENOUGH:
            category = areas.setdefault(vocabulary.category_of(tag), {})
            category[tag] = float(roc_auc_score(present, found[heard, at]))
    families = {name: [vocabulary.index[t] for t in tags if t in vocabulary.index] for name, tags in TEMPI.items()}
    slow, fast = (rows[:, families[name]].any(1) for name in ("slow", "fast"))
    either = slow ^ fast
    difference = np.nanmax(found[:, families["fast"]], axis=1) - np.nanmax(found[:, families["slow"]], axis=1)
    tempo = float(roc_auc_score(fast[either], difference[either]))
    median = {category: float(np.median(list(own.values()))) for category, own in areas.items()}
    return {"fast_against_slow": tempo, "median": median, "each": areas}


def rendered(
    found: np.ndarray, rows: np.ndarray, vocabulary: Vocabulary, clips: list[Arrangement]
) -> dict[str, dict[str, float]]:
    """The same against what is heard: clips that carry a tag, from clips that do not sound as it asks.

    A row need not name everything that its clip has, and often names it by another tag: 'piano' is to be found in
    clips of 'piano accompaniment', and in those whose piano nobody asked for.
    """
    instruments = {}
    for tag in vocabulary.tags:
        at, needs = vocabulary.index[tag], asked(tag)
        present, lacking = rows[:, at] > 0, ~np.array([needs <= sounding(clip) for clip in clips])
        judged = np.isfinite(found[:, at]) & (present | lacking)
        enough = min(present[judged].sum(), lacking[judged].sum()) >= ENOUGH
        if enough and needs and vocabulary.category_of(tag) == "instrument":
            instruments[tag] = float(roc_auc_score(present[judged], found[judged, at]))
    struck = [vocabulary.index[t] for t in vocabulary.tags if read([t]).on & {"percussion"} and t != NONE]
    absence = vocabulary.index[NONE]
    difference = np.nanmax(found[:, struck], axis=1) - found[:, absence]
    tagged = {True: rows[:, struck].any(1), False: rows[:, absence] > 0}
    heard, either = np.array([clip.percussion for clip in clips]), tagged[True] ^ tagged[False]
    percussion = {"clips with drums against clips without": float(roc_auc_score(heard, difference))}
    if tagged[False].any():
        percussion["tags of drums against 'no percussion'"] = float(
            roc_auc_score(tagged[True][either], difference[either])
        )
        percussion["rows with 'no percussion'"] = int(tagged[False].sum())
    return {
        "percussion": percussion,
        "instruments heard": {"median": float(np.median(list(instruments.values()))), **instruments},
    }


def asked(tag: str) -> set[str]:
    """What must sound for an instrument tag to be true, in the words of `sounding`."""
    cues = read([tag])
    wanted = {*cues.instruments, *cues.hits, *cues.kit, *cues.on}
    wanted |= {f"no {part}" for part in cues.off} | {f"bass {style}" for style in cues.bass_style}
    return wanted - {"voice"} if wanted & {"male", "female"} else wanted


def sounding(clip: Arrangement) -> set[str]:
    """What a clip has: instruments, drums, kit, bass and voices, and of the parts those that it lacks."""
    parts = {"percussion": clip.percussion, "bass": clip.bass, "voice": clip.voice is not None}
    found = {clip.lead, *clip.others} | {name if there else f"no {name}" for name, there in parts.items()}
    if clip.percussion:
        found |= {clip.kit, *clip.hits}
    if clip.bass:
        found.add(f"bass {clip.bass_style}")
    return found | ({"male", "female"} if clip.voice == "duet" else {str(clip.voice)})


def spoiled(
    aligner: ClapAligner,
    synthesiser: ProceduralSynthesiser,
    audio: AudioConfig,
    waves: list[np.ndarray],
    heard: np.ndarray,
    text: np.ndarray,
    captions: list[str],
) -> dict[str, Any]:
    """Share of clips rejected, sound ones and spoiled ones: mean and standard deviation over calibrations.

    Each calibration has `CALIBRATION` rows drawn anew; the other rows, in an order drawn with them, are judged,
    by each of `WAYS`.
    """
    rate, rng = synthesiser.sampling_rate, np.random.default_rng(0)
    kinds = {
        "sound": waves,
        "silence": [np.zeros_like(c) for c in waves],
        "noise": [0.2 * rng.standard_normal(c.shape).astype(np.float32) for c in waves],
        "clipped": [np.clip(c * 20, -1, 1) for c in waves],
        SWAPPED: waves,
    }
    unsound, embedded = {}, {}
    for name, clips in kinds.items():
        measures = [Measures.of(c, rate) for c in clips]
        found = [
            problem(m, c.shape[1] / rate, audio.duration, audio.checks) for m, c in zip(measures, clips, strict=True)
        ]
        unsound[name] = np.array([bool(p) for p in found])
        embedded[name] = heard if clips is waves else aligner.embed_audio(clips, rate)
    shares: dict[tuple[str, str], list[float]] = {}
    for _ in range(CALIBRATIONS):
        order = rng.permutation(len(waves))
        first, rest = order[:CALIBRATION], order[CALIBRATION:]
        own = heard[first], text[first], [captions[i] for i in first]
        for way, (quantile, centre) in WAYS.items():
            threshold = calibrate(*own, quantile, centre=centre).threshold
            for name in kinds:
                texts = np.roll(text[rest], 1, axis=0) if name == SWAPPED else text[rest]
                pairs = zip(embedded[name][rest], texts, strict=True)
                low = [threshold.decide(threshold.scores(clip[None], one)[0]) is not None for clip, one in pairs]
                shares.setdefault((way, name), []).append(float(np.mean(unsound[name][rest] | np.array(low))))
    summary = {key: {"mean": float(np.mean(s)), "deviation": float(np.std(s))} for key, s in shares.items()}
    return {way: {name: summary[way, name] for name in kinds} for way in WAYS}


def speed(source: Path, waves: list[np.ndarray], rate: int, captions: list[str]) -> dict[str, float]:
    """Clips per second of a batch and of clip by clip, extraction and texts included; best of five turns each.

    Clips are as long as what the model hears at once: of longer ones ours hears every window, its peer one at random.
    """
    aligner = ClapAligner(AlignmentConfig(model=str(source)))
    model, tokenizer, extractor = load_checkpoint(str(source))
    model.eval()
    length = extractor.max_length_s * extractor.sampling_rate
    mono = [signal.resample(wave, rate, extractor.sampling_rate)[0, :length] for wave in waves]

    def one_by_one() -> None:
        with torch.inference_mode():
            for wave, caption in zip(mono, captions, strict=True):
                model.get_audio_features(**extractor(wave, sampling_rate=extractor.sampling_rate, return_tensors="pt"))
                model.get_text_features(**tokenizer(caption, return_tensors="pt"))

    def batched() -> None:
        aligner._texts.clear()
        aligner.embed_audio([wave[None] for wave in mono], extractor.sampling_rate)
        aligner.embed_text(captions)

    best = {batched: 0.0, one_by_one: 0.0}
    for _ in range(5):
        for run in best:
            begun = time.perf_counter()
            run()
            best[run] = max(best[run], len(waves) / (time.perf_counter() - begun))
    return {
        "batched_clips_per_s": best[batched],
        "one_by_one_clips_per_s": best[one_by_one],
        "ratio": best[batched] / best[one_by_one],
    }


def write_htsat(folder: Path) -> Path:
    """A random checkpoint of the published sizes, with the packaged tokenizer."""
    ClapModel(ClapConfig()).save_pretrained(folder)
    load_checkpoint(str(EMBEDDED))[1].save_pretrained(folder)
    ClapFeatureExtractor(frequency_min=50, frequency_max=14_000, truncation="rand_trunc").save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
