"""Our decoding against audiocraft's, each in its own environment, on the same random checkpoints: tokens and seconds.

    conceptcaps env build audiocraft
    python benchmarks/authors_musicgen.py --python .envs/audiocraft/bin/python [--seconds 2] [--batch 8] [--rounds 2]

Greedy tokens are counted as equal or not. Then both decode the same captions in one batch with top-k 250 and guidance,
in turns, and audiocraft's waveforms and ours are made as well. CPU or GPU, whichever both see. Weights are in float32.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "authors_musicgen.json"
WORDS = ["slow", "fast", "calm", "loud", "piano", "guitar", "drums", "jazz", "rock", "techno", "with", "and", "a"]
CAPTIONS = ["slow calm piano", "fast techno with drums and a loud guitar", "jazz", "rock guitar", "calm drums"]


def save_checkpoint(folder: Path, shape: str) -> None:
    """A random checkpoint with a tokenizer of a few words, in a form that transformers 4 reads too."""
    import torch
    from musicgen import build
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    model = build(shape, "cpu", torch.float32)
    torch.manual_seed(0)
    for parameter in model.decoder.parameters():
        if parameter.ndim > 1:  # so that a greedy choice is clear
            torch.nn.init.normal_(parameter, 0, 2.5 / parameter.shape[1] ** 0.5)
    model.text_encoder.resize_token_embeddings(len(WORDS) + 3)
    model.save_pretrained(folder)
    vocabulary = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>").save_pretrained(folder)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))


def settings(folder: str, seconds: float, top_k: int) -> Any:
    from conceptcaps.config.audio import AudioConfig

    return AudioConfig(engine="musicgen", duration=seconds, musicgen={"model": folder, "top_k": top_k})


def serve_audiocraft(folder: str, seconds: float) -> None:
    """Answers lines of standard input: 'tokens' with greedy codes, a number with seconds for so many clips at once."""
    from conceptcaps.audio.audiocraft import AudiocraftSynthesiser

    greedy = AudiocraftSynthesiser(settings(folder, seconds, 1))
    engine = AudiocraftSynthesiser(settings(folder, seconds, 250))
    for line in sys.stdin:
        if line.strip() == "tokens":
            print(json.dumps([greedy.tokens(caption, 0).tolist() for caption in CAPTIONS]), flush=True)
            continue
        captions = [CAPTIONS[i % len(CAPTIONS)] for i in range(int(line))]
        began = time.perf_counter()
        engine._model.generate(captions)
        print(json.dumps(time.perf_counter() - began), flush=True)


class Peer:
    """audiocraft in its own interpreter."""

    def __init__(self, python: str, folder: Path, seconds: float):
        words = [python, __file__, "--serve", str(folder), "--seconds", str(seconds)]
        env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1]), "PYTHONWARNINGS": "ignore"}
        self.process = subprocess.Popen(words, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: object) -> Any:
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def measure(shape: str, options: argparse.Namespace) -> dict[str, Any]:
    import numpy as np
    import torch

    from conceptcaps.audio.musicgen import MusicgenSynthesiser

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_checkpoint(folder, shape)
        peer = Peer(options.python, folder, options.seconds)
        theirs = np.array(peer.ask("tokens"))
        greedy = MusicgenSynthesiser(settings(name, options.seconds, 1))
        states, mask = greedy.encode_text(CAPTIONS)
        codes, _ = greedy._decoder.generate(states, mask, torch.arange(len(CAPTIONS)), theirs.shape[2])
        equal = codes.cpu().numpy() == theirs
        engine = MusicgenSynthesiser(settings(name, options.seconds, 250))
        batch = {
            "caption": [CAPTIONS[i % len(CAPTIONS)] for i in range(options.batch)],
            "seed": list(range(options.batch)),
        }
        times: dict[str, list[float]] = {"audiocraft": [], "ours": []}
        for _ in range(options.rounds):
            times["audiocraft"].append(peer.ask(options.batch))
            began = time.perf_counter()
            engine(batch)
            times["ours"].append(time.perf_counter() - began)
        peer.process.kill()
    best = {name: min(values) for name, values in times.items()}
    return {
        "shape": shape,
        "seconds_of_audio": options.seconds,
        "batch": options.batch,
        "clips_with_equal_greedy_tokens": float(equal.all((1, 2)).mean()),
        "distinct_greedy_tokens": len(np.unique(theirs)),
        "seconds": best,
        "times_faster": best["audiocraft"] / best["ours"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", help="interpreter of audiocraft's environment")
    parser.add_argument("--shapes", nargs="+", default=["42M"])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve_audiocraft(options.serve, options.seconds)
        return
    if not options.python:
        parser.exit(2, "give --python: `conceptcaps env build audiocraft` prints it\n")
    from machine import describe_machine

    results = {"machine": describe_machine(), "measured": [measure(shape, options) for shape in options.shapes]}
    print(json.dumps(results["measured"], indent=1))
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
