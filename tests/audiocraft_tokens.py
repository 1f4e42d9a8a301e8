"""Codes that audiocraft decodes greedily, as JSON: `python audiocraft_tokens.py CHECKPOINT SECONDS CAPTION ...`.

Started by a test in audiocraft's own environment.
"""

import json
import sys

from conceptcaps.audio.audiocraft import AudiocraftSynthesiser
from conceptcaps.config.audio import AudioConfig

if __name__ == "__main__":
    checkpoint, seconds, *captions = sys.argv[1:]
    greedy = {"model": checkpoint, "top_k": 1, "window": 0.5, "extend_stride": 0.3}
    engine = AudiocraftSynthesiser(AudioConfig(engine="audiocraft", duration=float(seconds), musicgen=greedy))
    print(json.dumps([engine.tokens(caption, 0).tolist() for caption in captions]))
