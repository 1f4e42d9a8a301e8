"""Lessons of the embedded CLAP's text tower alone, the audio tower locked (Zhai et al. 2022).

In every lesson single tags are taught by what is true of clips (`clap_texts`). Whole texts are taught first by contrast
with the clips of their sets; then they are led to where clips of such a text lie on average. The average is known
without rendering one, since embeddings are nearly linear in what a clip has: any number of sets can so be learnt from.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.nn import functional
from transformers import ClapModel, PreTrainedTokenizerFast

from conceptcaps.assets.clap_corpus import PAD, SEED, draw_tokens
from conceptcaps.assets.clap_texts import Statements, truth_loss
from conceptcaps.seeding import derive, generator

logger = logging.getLogger(__name__)

NUM_CLIPS, WARM_UP = 96, 50
"""Clips of a step; steps until the rate is whole."""

Read = Callable[[Tensor], Tensor]
"""Tokens (num_texts, num_tokens) -> float32 embeddings (num_texts, width) of unit length."""
Loss = Callable[[Tensor, np.random.Generator, Read], Tensor]
"""(clips of the step, source of draws, text tower) -> loss of some whole texts."""


@dataclass(frozen=True)
class Lesson:
    """How the text tower learns.

    Attributes:
        name: seeds what is drawn.
        steps: of the optimiser, while the rate falls to nothing.
        rate: the highest step size.
        statements: single tags of a step.
        whole: the loss of whole texts.
    """

    name: str
    steps: int
    rate: float
    statements: int
    whole: Loss


def expected(has: Tensor, audio: Tensor, likely: Tensor, penalty: float = 10.0) -> Tensor:
    """Where clips of some texts lie on average: a ridge regression of embeddings on what their clips have.

    Args:
        has: (num_clips, num_attributes) in {0, 1}.
        audio: float32 (num_clips, width) embeddings.
        likely: (num_texts, num_attributes) in [0, 1], how likely a text makes each attribute.
        penalty: on squared weights.

    Returns:
        float32 (num_texts, width), unit length.
    """
    regression = Ridge(penalty).fit(has.float().numpy(), audio.numpy())
    return functional.normalize(torch.from_numpy(regression.predict(likely.float().numpy())).float(), dim=1)


def by_contrast(audio: Tensor, tokens: Tensor, scale: Tensor) -> Loss:
    """Each clip of the step against the texts of all of them.

    Args:
        audio: float32 (num_clips, width).
        tokens: of the clips' sets, as in `Texts`.
        scale: of the cosines.
    """

    def loss(rows: Tensor, rng: np.random.Generator, read: Read) -> Tensor:
        return contrast(scale * audio[rows] @ read(draw_tokens(tokens, rows, rng)[0]).T)

    return loss


def by_regression(wanted: Tensor, tokens: Tensor, number: int, weight: float) -> Loss:
    """Texts of any sets to where they should lie.

    Args:
        wanted: float32 (num_sets, width), unit length.
        tokens: of the sets, as in `Texts`.
        number: texts of a step.
        weight: of their mean distance, 1 - cosine.
    """

    def loss(_: Tensor, rng: np.random.Generator, read: Read) -> Tensor:
        rows = torch.as_tensor(rng.integers(len(wanted), size=number))
        return weight * (1 - (read(draw_tokens(tokens, rows, rng)[0]) * wanted[rows]).sum(1)).mean()

    return loss


def teach(
    model: ClapModel, tokenizer: PreTrainedTokenizerFast, audio: Tensor, said: Statements, lesson: Lesson
) -> None:
    """One lesson, in place.

    Args:
        model: whose text tower learns.
        tokenizer: of statements.
        audio: float32 (num_clips, width) embeddings of clips.
        said: what is true of them.
        lesson: how long, and by what loss of whole texts.
    """
    torch.manual_seed(derive(SEED, lesson.name) % 2**32)
    model.eval().requires_grad_(False)
    parameters = [*model.text_model.parameters(), *model.text_projection.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(parameters, lr=lesson.rate, weight_decay=0.05, betas=(0.9, 0.98))
    scale, rng = temperature(model), generator(SEED, lesson.name)
    model.text_model.train()

    def reader(tokens: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return functional.normalize(read(model, tokens).float(), dim=1)

    for step in range(lesson.steps):
        rows = torch.as_tensor(rng.integers(len(audio), size=NUM_CLIPS))
        chosen = rng.permutation(len(said.tags))[: lesson.statements]
        texts = tokenizer(said.say(chosen, rng), padding=True, return_tensors="pt")["input_ids"]
        true = torch.as_tensor(said.true[rows][:, chosen], dtype=torch.float32)
        loss = truth_loss(scale * audio[rows] @ reader(texts).T, true) + lesson.whole(rows, rng, reader)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = lesson.rate * min(1.0, (step + 1) / WARM_UP, 1 - step / lesson.steps)
        optimiser.step()
        if step % 20 == 0:
            logger.info("lesson %r, step %d of %d, loss %.3f", lesson.name, step, lesson.steps, loss.item())


def temperature(model: ClapModel) -> Tensor:
    """The factor of cosines in a contrast."""
    return model.logit_scale_a.exp().clamp(max=50)


def contrast(logits: Tensor) -> Tensor:
    """Cross entropy of (num_clips, num_clips) logits, from audio to text and back."""
    target = torch.arange(len(logits))
    return (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)) / 2


def read(model: ClapModel, tokens: Tensor) -> Tensor:
    """(num_texts, width) embeddings of tokens."""
    return model.get_text_features(input_ids=tokens, attention_mask=(tokens != PAD).long()).pooler_output


@torch.no_grad()
def hear_all(model: ClapModel, mel: Tensor) -> Tensor:
    """float32 (num_clips, width) embeddings of float16 (num_clips, num_frames, num_mels)."""
    model.eval()
    heard = []
    for clips in mel.float().split(100):
        longer = torch.zeros(len(clips), 1, dtype=torch.bool)
        heard.append(model.get_audio_features(input_features=clips[:, None], is_longer=longer).pooler_output)
    return torch.cat(heard)
