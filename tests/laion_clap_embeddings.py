"""Engine `laion_clap` on given clips and texts: `python laion_clap_embeddings.py IN.npz TOKENIZER WEIGHTS OUT.npz`.

Started by a test in laion-clap's own environment. IN holds `rate`, `texts` and mono clips `clip0`, `clip1`, ...
"""

import sys

import numpy as np

from conceptcaps.alignment.laion import LaionClapAligner
from conceptcaps.config.alignment import AlignmentConfig

if __name__ == "__main__":
    given, tokenizer, weights, out = sys.argv[1:]
    inputs = np.load(given)
    engine = LaionClapAligner(AlignmentConfig(engine="laion_clap", model=weights, laion_clap={"tokenizer": tokenizer}))
    clips = [inputs[f"clip{i}"][None] for i in range(len(inputs.files) - 2)]
    audio = engine.embed_audio(clips, int(inputs["rate"]))
    np.savez(out, audio=audio, text=engine.embed_text(inputs["texts"].tolist()))
