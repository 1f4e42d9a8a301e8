"""Rebuild the embedded CLAP: `python -m conceptcaps.assets.build_clap`.

A small ClapModel (HTSAT over mel bands, Roberta over byte pairs) is trained on procedural clips and what can be said
of them: of the whole tag set, and of single tags of it, as tag verification asks. Beside the contrastive loss of CLAP
(Wu et al. 2023, section 2.1) both towers predict, through one shared linear layer, attributes of the synthesiser: the
audio those that it rendered, a text those that it makes likely. The layer is dropped at the end, and makes a few
thousand clips enough. Then the text tower alone has two lessons more (`clap_lessons`).
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, processors
from torch import nn
from torch.nn import functional
from transformers import ClapConfig, ClapModel, PreTrainedTokenizerFast

from conceptcaps.alignment.clap import EMBEDDED
from conceptcaps.assets import clap_data
from conceptcaps.assets.clap_corpus import (
    EXTRACTOR,
    MAX_TOKENS,
    NUM_PARTS,
    SEED,
    Batch,
    Corpus,
    Index,
    SaidSets,
    attributes,
    heard_in,
    prepare,
    say_all,
    tag_sets,
    tokenise,
)
from conceptcaps.assets.clap_lessons import (
    Lesson,
    by_contrast,
    by_regression,
    contrast,
    expected,
    hear_all,
    read,
    teach,
    temperature,
)
from conceptcaps.assets.clap_quality import measure
from conceptcaps.assets.clap_sets import composed_sets
from conceptcaps.assets.clap_texts import make_statements
from conceptcaps.assets.tag_words import TagSet
from conceptcaps.seeding import derive, generator

logger = logging.getLogger(__name__)

VOCAB_SIZE = 4000
EPOCHS = 75
WARM_UP = 150
"""Steps."""
NUM_TEXT_SETS, NUM_TEXT_SAYINGS, NUM_TEXT_ARRANGED = 30_000, 4, 8
"""Of the last lesson: composed sets beyond those with clips, texts of each set, arrangements of each."""
SPECIAL_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
}
WEIGHTS = 1.0, 0.5
"""Of the losses of a whole set's text, and of a part's."""
HEAD_GAIN = 8.0
"""Embeddings have unit length; the attribute layer reads them larger, to be sure of anything."""


def model_config(vocab_size: int) -> ClapConfig:
    """The true architecture, small: 16 x 16 patches in three stages, two text layers."""
    audio = {
        "num_mel_bins": 64, "spec_size": 128, "patch_size": 8, "patch_stride": [8, 8], "window_size": 4,
        "patch_embeds_hidden_size": 64, "depths": [1, 1, 2], "num_attention_heads": [2, 4, 8], "num_hidden_layers": 3,
        "hidden_size": 256, "num_classes": 1, "projection_dim": 128, "hidden_dropout_prob": 0.0,
    }  # fmt: skip
    text = {
        "vocab_size": vocab_size, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 384, "max_position_embeddings": MAX_TOKENS + 2, "projection_dim": 128,
    }  # fmt: skip
    return ClapConfig(audio_config=audio, text_config=text, projection_dim=128)


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte-level BPE of the lower-cased training texts, with Roberta's special tokens."""
    bpe = ByteLevelBPETokenizer(lowercase=True, add_prefix_space=True)
    bpe.train_from_iterator(
        texts, vocab_size=VOCAB_SIZE, min_frequency=2, special_tokens=list(SPECIAL_TOKENS.values()), show_progress=False
    )
    bpe.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    backend = Tokenizer.from_str(bpe.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=MAX_TOKENS, **SPECIAL_TOKENS)


def train(model: ClapModel, corpus: Corpus, epochs: int, batch_size: int = 96, learning_rate: float = 1.2e-3) -> None:
    """Contrastive and attribute losses under AdamW."""
    frequency = corpus.attributes.float().mean(0).clamp(0.005, 0.995)
    head = nn.Linear(model.config.projection_dim, corpus.attributes.shape[1])
    head.bias.data = torch.logit(frequency)
    parameters = [*model.parameters(), *head.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.05, betas=(0.9, 0.98))
    num_steps = epochs * (len(corpus.mel) // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate(step, num_steps))
    model.train()
    started = time.monotonic()
    for step, batch in enumerate(batches(corpus, epochs, batch_size)):
        loss = _loss(model, head, batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        schedule.step()
        if step % 20 == 0:
            logger.info("step %d of %d, loss %.3f, %.0f s", step, num_steps, loss.item(), time.monotonic() - started)


def _rate(step: int, num_steps: int) -> float:
    """Up, level, and down over the last three tenths: longer training begins as a shorter one does."""
    return min(1.0, (step + 1) / WARM_UP, (num_steps - step) / (0.3 * num_steps))


def _loss(model: ClapModel, head: nn.Linear, batch: Batch) -> torch.Tensor:
    longer = torch.zeros(len(batch.mel), 1, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):  # twice as fast; the losses are in single precision
        audio = model.get_audio_features(input_features=batch.mel[:, None], is_longer=longer).pooler_output
        texts = [read(model, tokens) for tokens, _ in batch.texts]
    scale = temperature(model)
    loss = 10 * _told(head, audio.float(), batch.attributes)
    for text, (_, likely), weight in zip(texts, batch.texts, WEIGHTS, strict=True):
        apart = contrast(scale * audio.float() @ text.float().T)
        loss = loss + weight * (apart + 5 * _told(head, text.float(), likely))
    return loss


def _told(head: nn.Linear, side: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return functional.binary_cross_entropy_with_logits(head(HEAD_GAIN * side), wanted)


def batches(corpus: Corpus, epochs: int, batch_size: int) -> Iterator[Batch]:
    """Random clips with texts; time is rolled and level shifted."""
    rng = generator(SEED, "batches")
    for _ in range(epochs):
        order = rng.permutation(len(corpus.mel))
        for start in range(0, len(order) - batch_size + 1, batch_size):
            rows = torch.as_tensor(order[start : start + batch_size])
            mel = corpus.mel[rows].float()
            mel = torch.roll(mel, int(rng.integers(mel.shape[1])), dims=1)
            mel = mel + torch.as_tensor(rng.normal(0, 1.0, (len(rows), 1, 1)), dtype=torch.float32)
            texts = corpus.whole.draw(rows, rng), corpus.parts.draw(rows, rng)
            yield Batch(mel, corpus.attributes[rows].float(), texts)


def save(model: ClapModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The checkpoint in transformers' layout, weights in float16; what is taught next goes on from what that keeps."""
    model.eval().half().save_pretrained(folder)
    model.float()
    tokenizer.save_pretrained(folder)
    EXTRACTOR.save_pretrained(folder)


def build(folder: Path, epochs: int) -> dict[str, float]:
    """Train, save and measure; returns what `clap_quality.measure` found on sets held out."""
    sets, held_out = tag_sets()
    texts = SaidSets(
        say_all(sets),
        [clap_data.part_sayings(tags, NUM_PARTS, derive(SEED, "parts", i)) for i, tags in enumerate(sets)],
    )
    tokenizer = make_tokenizer([text for group in texts.whole for text in group])
    corpus = prepare(sets, tokenizer, texts)
    torch.manual_seed(derive(SEED, "weights") % 2**32)
    model = ClapModel(model_config(len(tokenizer)))
    train(model, corpus, epochs)
    save(model, tokenizer, folder)
    audio, said = hear_all(model, corpus.mel), make_statements(sets, heard_in(sets), attributes)
    whole = by_contrast(audio, corpus.whole.tokens, temperature(model).detach())
    teach(model, tokenizer, audio, said, Lesson("tune", 400, 6e-4, 128, whole))
    save(model, tokenizer, folder)
    teach(model, tokenizer, audio, said, last_lesson(tokenizer, sets, corpus.index, corpus.attributes, audio))
    save(model, tokenizer, folder)
    quality = measure(str(folder), held_out, derive(SEED, "held out"))
    report = {**quality, "epochs": epochs, "train_clips": len(sets), "text_sets": len(sets) + NUM_TEXT_SETS}
    (folder / "quality.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def last_lesson(
    tokenizer: PreTrainedTokenizerFast, sets: list[TagSet], index: Index, has: torch.Tensor, audio: torch.Tensor
) -> Lesson:
    """Texts of the training sets, and of many more, led to where their clips should lie."""
    every = sets + composed_sets(NUM_TEXT_SETS, derive(SEED, "sets for texts"))
    likely = torch.stack([index.likely(clap_data.flat(tags), NUM_TEXT_ARRANGED) for tags in every])
    wanted = expected(has, audio, likely)
    tokens = tokenise(tokenizer, say_all(every, NUM_TEXT_SAYINGS, "sayings for texts"))
    return Lesson("tune on", 2000, 1.2e-3, 96, by_regression(wanted, tokens, number=192, weight=60.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=EMBEDDED)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    print(json.dumps(build(arguments.folder, arguments.epochs), indent=2))


if __name__ == "__main__":
    main()
