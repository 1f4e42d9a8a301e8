"""Tag sets from a fitted model: every row a function of (run seed, index), every rule kept by rejection.

Rows are made in chunks of fixed size, each from its own counter-based generator, and a chunk is always made whole:
neither the number of rows nor the number of workers changes a row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from conceptcaps.contradictions import Contradictions
from conceptcaps.errors import InputError
from conceptcaps.seeding import generator
from conceptcaps.vae.model import BetaVAE
from conceptcaps.vocabulary import Vocabulary

CHUNK = 4096
"""Rows of a chunk. Part of what a row is: another value makes other rows."""
_PILOT = 8192
_PILOT_DRAWS, _PILOT_ROWS = 60 * _PILOT, 50
_MAX_ROUNDS = 2000


class Proposer(Protocol):
    """A model that can draw tag sets, some tags given."""

    def tilted(self, tilt: np.ndarray) -> Proposer:
        """The same model with `tilt` (num_tags,) added to its logits."""
        ...

    def propose(self, rng: np.random.Generator, count: int, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Draw `count` tag sets in which the tags `given` (indices) are set.

        Returns:
            uint8 (count, num_tags), and float64 (count,): the log probability that the model itself would have set
            the given tags in that draw. Accepting in proportion to it makes the draws the model's own, conditioned.
        """
        ...


@dataclass(frozen=True)
class VaeProposer:
    """Draws from the prior of a one-member beta-VAE.

    Attributes:
        model: in evaluation mode.
        method: 'bernoulli' draws each tag with its probability, 'threshold' sets those at or above `threshold`.
        threshold: for method 'threshold'.
        temperature: logits are divided by it.
        tilt: float (num_tags,) or 0.0, added to the logits.
    """

    model: BetaVAE
    method: str = "bernoulli"
    threshold: float = 0.5
    temperature: float = 1.0
    tilt: np.ndarray | float = 0.0

    def tilted(self, tilt: np.ndarray) -> VaeProposer:
        return replace(self, tilt=tilt)

    def propose(self, rng: np.random.Generator, count: int, given: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = rng.standard_normal((count, self.model.latent_dim))
        logits = self._logits(z)
        if self.method == "threshold":
            matrix = (logits >= np.log(self.threshold / (1 - self.threshold))).astype(np.uint8)
            return matrix, np.where(matrix[:, given].all(1), 0.0, -np.inf)
        matrix = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(np.uint8)
        matrix[:, given] = 1
        return matrix, -np.logaddexp(0, -logits[:, given]).sum(1)

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        # Double precision: the last bits of a product vary with the machine's threads, and must not flip a tag.
        return {name: value[0].double().numpy() for name, value in self.model.state_dict().items()}

    def _logits(self, z: np.ndarray) -> np.ndarray:
        weights = self._weights
        hidden = np.maximum(z @ weights["decoder_hidden.weight"] + weights["decoder_hidden.bias"], 0)
        logits = (hidden @ weights["decoder_out.weight"] + weights["decoder_out.bias"]) / self.temperature
        return logits + self.tilt


@dataclass(frozen=True)
class Rules:
    """What a tag set must satisfy.

    Attributes:
        vocabulary: of the matrices.
        contradictions: pairs that never stand together; None allows all.
        min_categories: fewest categories with a tag.
        max_tags: most tags.
        given: tags that must be there.
    """

    vocabulary: Vocabulary
    contradictions: Contradictions | None = None
    min_categories: int = 1
    max_tags: int = 10**9
    given: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = [tag for tag in self.given if tag not in self.vocabulary.index]
        if unknown:
            raise InputError("key 'specs.seed_tags'", f"{unknown} are not in the vocabulary", "Use canonical tags")
        if self.contradictions is not None and (faults := self.contradictions.describe(self.given)):
            raise InputError("key 'specs.seed_tags'", f"contradict each other ({faults[0]})", "Remove one of them")
        if len(self.given_indices) > self.max_tags:
            raise InputError("key 'specs.seed_tags'", f"are more than max_tags, {self.max_tags}", "Raise max_tags")

    @cached_property
    def given_indices(self) -> np.ndarray:
        """int64: the columns of the given tags."""
        return np.array(sorted({self.vocabulary.index[t] for t in self.given}), dtype=np.int64)

    def admits(self, matrix: np.ndarray) -> np.ndarray:
        """bool (num_rows,): which multi-hot rows satisfy every rule."""
        fine = (matrix.sum(1) <= self.max_tags) & (self.vocabulary.num_categories(matrix) >= self.min_categories)
        fine &= matrix[:, self.given_indices].all(1)
        if self.contradictions is not None:
            fine &= ~self.contradictions.violations(matrix)
        return fine


class Sampler:
    """Endless rows of a model under rules.

    Args:
        proposer: the model.
        rules: that every row satisfies.
        seed: of the run's sampling.
        size_log_ratio: float (any length,), by set size, the log of how much oftener than the model makes them such
            sets are wanted; sizes beyond its end count as its last. None leaves the model's sizes.
        chunk_size: rows of a chunk; another value makes other rows.

    Raises:
        InputError: the model practically never makes such a row.
    """

    def __init__(
        self,
        proposer: Proposer,
        rules: Rules,
        seed: int,
        size_log_ratio: np.ndarray | None = None,
        chunk_size: int = CHUNK,
    ):
        self.proposer, self.rules, self.seed, self.chunk_size = proposer, rules, seed, chunk_size
        self.size_log_ratio = np.zeros(1) if size_log_ratio is None else size_log_ratio
        self._log_envelope, self.acceptance = self._measure()

    def _measure(self) -> tuple[float, float]:
        """The bound on proposals' weights, and the share of proposals that become rows."""
        found: list[np.ndarray] = []
        best, accepted, tried = -np.inf, 0.0, 0
        while tried < _PILOT_DRAWS:
            rng = generator(self.seed, "pilot", tried)
            matrix, log_weight = self._propose(rng, _PILOT)
            tried += _PILOT
            found.append(log_weight[self.rules.admits(matrix) & np.isfinite(log_weight)])
            best = max(best, found[-1].max(initial=-np.inf))
            accepted = sum(float(np.exp(weights - best).sum()) for weights in found)
            if accepted >= _PILOT_ROWS:
                return best, accepted / tried
        raise InputError(
            "specs",
            f"the model makes a set that satisfies every rule in {accepted:.0f} of {tried} draws",
            "Give fewer seed_tags, lower min_categories or threshold, or raise max_tags or temperature",
        )

    def _propose(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        matrix, log_weight = self.proposer.propose(rng, count, self.rules.given_indices)
        sizes = np.minimum(matrix.sum(1), len(self.size_log_ratio) - 1)
        return matrix, log_weight + self.size_log_ratio[sizes]

    def chunk(self, index: int, spare: int = 0) -> np.ndarray:
        """uint8 (chunk_size, num_tags): chunk `index` of the rows, or its `spare`-th set of replacements."""
        kept: list[np.ndarray] = []
        missing = self.chunk_size
        for attempt in range(_MAX_ROUNDS):
            rng = generator(self.seed, "chunk", index, spare, attempt)
            count = int(min(max(1.1 * missing / self.acceptance, 256), 4 * CHUNK))
            matrix, log_weight = self._propose(rng, count)
            chosen = np.log(rng.random(count)) < log_weight - self._log_envelope
            rows = matrix[chosen]  # fewer than half, so that the rules have less to look at
            rows = rows[self.rules.admits(rows)][:missing]
            kept.append(rows)
            missing -= len(rows)
            if not missing:
                return np.concatenate(kept)
        raise InputError("specs", f"chunk {index} lacks {missing} rows after {_MAX_ROUNDS} rounds", "Relax the rules")

    def rows(self, begin: int, end: int) -> np.ndarray:
        """uint8 (end - begin, num_tags): rows by index."""
        size = self.chunk_size
        chunks = [self.chunk(i) for i in range(begin // size, -(-end // size))]
        first = begin // size * size
        return np.concatenate(chunks)[begin - first : end - first]
