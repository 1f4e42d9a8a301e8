"""Rebuild the embedded language model: `python -m conceptcaps.assets.build_lm` (about 20 minutes on one core).

A Llama architecture small enough to ship, taught to say any tags in the grammar's sentences through the built-in
prompt and its own chat template. Most of its tags are composed or invented at random, so that what it can learn is to
copy, not to recall. It begins with drills, random tokens said twice: the heads that continue a repeated sequence
(Olsson et al. 2022, In-context learning and induction heads) are most of what the task needs.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from conceptcaps.assets.corpus import FOLDER, load_taxonomy
from conceptcaps.assets.tag_words import TagSet, draw_tag_set
from conceptcaps.captions.grammar import describe_tags
from conceptcaps.captions.prompts import PromptTemplate, dialogue_ids
from conceptcaps.seeding import derive, generator
from conceptcaps.vocabulary import aspects_column

logger = logging.getLogger(__name__)

LM = FOLDER / "lm"
SEED = 11
NUM_STEPS = 2700
NUM_DRILL_STEPS = 800
"""Drills among the first steps only, ever fewer."""
ROWS_PER_STEP = 8
PEAK_RATE = 4e-3
VOCABULARY_SIZE = 2048
ARCHITECTURE: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 352,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    "tie_word_embeddings": True,
}
BOS, EOS, PAD, USER, ASSISTANT = "<s>", "</s>", "<pad>", "<user>", "<assistant>"
# No system role: instructions are wasted on a model that can do one thing, and would double its prompts.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}<user>{{ message['content'] }}"
    "{% elif message['role'] == 'assistant' %}<assistant> {{ message['content'] }}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


def draw_example(index: int, vocabulary: Any, seed: int = SEED) -> tuple[TagSet, str]:
    """The tags and the caption of one training example."""
    rng = generator(seed, "lm", index)
    tags = draw_tag_set(rng, vocabulary)
    return tags, describe_tags(tags, rng)


def as_row(tags: TagSet) -> dict[str, list[str]]:
    return {aspects_column(category): said for category, said in tags.items()}


def build_tokenizer(seed: int = SEED, num_texts: int = 20_000) -> PreTrainedTokenizerFast:
    """A byte-level BPE learnt on prompts and captions, with special tokens and the chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[PAD, BOS, EOS, USER, ASSISTANT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(derive(seed, "tokenizer"), num_texts), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _texts(seed: int, count: int) -> Iterator[str]:
    vocabulary, template = load_taxonomy(), PromptTemplate.load(None)
    for i in range(count):
        tags, caption = draw_example(i, vocabulary, seed)
        yield template.messages(as_row(tags))[-1]["content"]
        yield f" {caption}"


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int = SEED) -> LlamaForCausalLM:
    """The untrained model; the caller's random state is left as it was."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **ARCHITECTURE,
    )
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, "weights") % 2**32)
        return LlamaForCausalLM(config)


class Examples:
    """Training batches by step number, so that a run that goes on from a saved state sees what it would have seen.

    Examples are drawn a pool at a time and sorted by length, so that the rows of a batch have like lengths.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, rows: int = ROWS_PER_STEP, pool: int = 64):
        self.tokenizer, self.seed, self.rows, self.pool = tokenizer, seed, rows, pool
        self.vocabulary, self.template = load_taxonomy(), PromptTemplate.load(None)
        self.number, self.order, self.drawn = -1, np.arange(0), []  # type: int, np.ndarray, list[tuple[list[int], int]]

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """(ids, answer mask) of a step, both (rows, length)."""
        if step // self.pool != self.number:
            self._draw(step // self.pool)
        start = int(self.order[step % self.pool]) * self.rows
        return collate(self.drawn[start : start + self.rows], int(self.tokenizer.pad_token_id))

    def _draw(self, number: int) -> None:
        size = self.pool * self.rows
        drawn = []
        for i in range(number * size, (number + 1) * size):
            tags, caption = draw_example(i, self.vocabulary, self.seed)
            drawn.append(dialogue_ids(self.tokenizer, self.template.messages(as_row(tags)), caption))
        self.drawn = sorted(drawn, key=lambda example: len(example[0]))
        self.number, self.order = number, generator(self.seed, "batches", number).permutation(self.pool)


def collate(examples: list[tuple[list[int], int]], pad: int) -> tuple[Tensor, Tensor]:
    """Right-padded ids and the mask of answer tokens, both (rows, length)."""
    length = max(len(ids) for ids, _ in examples)
    ids = torch.full((len(examples), length), pad)
    answer = torch.zeros((len(examples), length), dtype=torch.bool)
    for row, (tokens, num_prompt) in enumerate(examples):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        answer[row, num_prompt : len(tokens)] = True
    return ids, answer


def drill(rng: np.random.Generator, rows: int, first_id: int, last_id: int) -> tuple[Tensor, Tensor]:
    """Random tokens said twice: (ids, mask of the second saying)."""
    length = int(rng.integers(12, 48))
    once = torch.from_numpy(rng.integers(first_id, last_id, size=(rows, length)))
    mask = torch.zeros((rows, 2 * length), dtype=torch.bool)
    mask[:, length + 1 :] = True  # which token comes back first cannot be known
    return torch.cat([once, once], 1), mask


def answer_loss(model: LlamaForCausalLM, ids: Tensor, answer: Tensor) -> Tensor:
    """Mean cross-entropy in nats of the answer's tokens. Padding is on the right, so causality alone masks it."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
    wanted = answer[:, 1:]
    return F.cross_entropy(model.lm_head(hidden[:, :-1][wanted]), ids[:, 1:][wanted])


class Muon:
    """Momentum whose update is made nearly orthogonal (Jordan et al. 2024): fewer steps than AdamW on small matrices.

    torch.optim.Muon computes in bfloat16, which costs more than the whole step on a CPU without it.

    Args:
        matrices: 2-D parameters; those of one shape are updated together.
    """

    def __init__(self, matrices: list[Tensor], momentum: float = 0.95):
        self.momentum = momentum
        shapes = sorted({tuple(m.shape) for m in matrices})
        self.groups = [[m for m in matrices if tuple(m.shape) == shape] for shape in shapes]
        self.buffers = [torch.zeros(len(group), *group[0].shape) for group in self.groups]

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradient = torch.stack([m.grad for m in group if m.grad is not None])
            buffer.lerp_(gradient, 1 - self.momentum)
            update = orthogonalise(gradient.lerp(buffer, self.momentum))
            scale = 0.2 * max(update.shape[-2:]) ** 0.5  # an entry's size is then that of an AdamW step
            for matrix, change in zip(group, update, strict=True):
                matrix.add_(change, alpha=-lr * scale)
                matrix.grad = None


def orthogonalise(batch: Tensor, steps: int = 5) -> Tensor:
    """Singular values of (n, rows, columns) matrices to about 1, by Newton-Schulz iteration."""
    tall = batch.shape[-2] > batch.shape[-1]
    x = batch.mT if tall else batch
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.mT if tall else x


class Trainer:
    """The whole state of training, so that it can stop and go on."""

    def __init__(self, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int = SEED):
        layers = [p for p in model.model.layers.parameters() if p.ndim == 2]
        chosen = {id(p) for p in layers}
        self.model, self.seed, self.done = model, seed, 0
        self.examples = Examples(tokenizer, seed)
        self.num_tokens = len(tokenizer)
        self.muon = Muon(layers)
        self.adam = torch.optim.AdamW(
            [p for p in model.parameters() if id(p) not in chosen], lr=0.0, betas=(0.9, 0.98), weight_decay=0.0
        )
        self.losses: list[float] = []

    def step(self, num_steps: int) -> None:
        """One step of a run of `num_steps`."""
        loss = answer_loss(self.model, *self._batch())
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        lr = PEAK_RATE * _schedule(self.done, num_steps)
        self.muon.step(lr)
        self.adam.param_groups[0]["lr"] = lr
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        self.done += 1
        self.losses = [*self.losses[-99:], loss.item()]

    def _batch(self) -> tuple[Tensor, Tensor]:
        rng = generator(self.seed, "drill", self.done)
        if rng.random() < 0.7 * (1 - self.done / NUM_DRILL_STEPS):
            return drill(rng, 2 * ROWS_PER_STEP, 5, self.num_tokens)
        return self.examples[self.done]

    def save(self, path: Path) -> None:
        state = {"model": self.model.state_dict(), "muon": self.muon.buffers, "adam": self.adam.state_dict()}
        partial = path.with_suffix(".tmp")
        torch.save(state | {"done": self.done, "losses": self.losses}, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.muon.buffers = state["muon"]
        self.adam.load_state_dict(state["adam"])
        self.done, self.losses = state["done"], state["losses"]


def train(trainer: Trainer, num_steps: int, state: Path | None = None) -> float:
    """Train in place; returns the mean loss of the last steps, in nats per answer token.

    Args:
        state: file to save the state in every 100 steps, and to go on from where it is there. Until the rate falls,
            in the last third of a run, the state does not depend on `num_steps`.
    """
    if state is not None and state.exists():
        trainer.load(state)
    started = time.monotonic()
    while trainer.done < num_steps:
        trainer.step(num_steps)
        if trainer.done % 100 == 0:
            mean = sum(trainer.losses[-50:]) / 50
            logger.info("step %d loss %.4f %.0f s", trainer.done, mean, time.monotonic() - started)
            if state is not None:
                trainer.save(state)
    return sum(trainer.losses) / len(trainer.losses)


def _schedule(step: int, num_steps: int) -> float:
    """Warm up over 100 steps, hold, and fall to zero in a straight line over the last third."""
    fall = num_steps * 2 / 3
    return min(1.0, (step + 1) / 100, (num_steps - step) / (num_steps - fall))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """The checkpoint in half precision, in the layout of `from_pretrained`."""
    half: Any = LlamaForCausalLM(model.config)
    half = half.half()
    half.load_state_dict(model.state_dict())
    half.generation_config.update(bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id)
    half.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--folder", type=Path, default=LM)
    parser.add_argument("--state", type=Path, help="file to keep the state in, and to go on from")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tokenizer = build_tokenizer(arguments.seed)
    model = build_model(tokenizer, arguments.seed)
    logger.info("%d parameters, %d tokens", model.num_parameters(), len(tokenizer))
    loss = train(Trainer(model, tokenizer, arguments.seed), arguments.steps, arguments.state)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    save(model, tokenizer, arguments.folder)
    facts = {"steps": arguments.steps, "seed": arguments.seed, "training_loss": loss}
    facts["parameters"] = model.num_parameters()
    (arguments.folder / "training.json").write_text(json.dumps(facts, indent=2) + "\n")
    from conceptcaps.assets.lm_quality import measure

    quality = measure(arguments.folder)
    (arguments.folder / "quality.json").write_text(json.dumps(quality, indent=2) + "\n")
    logger.info("%s", json.dumps(quality, indent=2))


if __name__ == "__main__":
    main()
