"""Section `evaluation`: how captions are measured; nothing of a run depends on it."""

from __future__ import annotations

from pydantic import Field

from conceptcaps.config.base import Section, speed_key


class JudgeConfig(Section):
    """A language model that grades captions."""

    model: str | None = speed_key(None, "Local path or hub id of an instruct model; null: no judge")
    rubric: str | None = speed_key(None, "YAML file: system, user, lowest, highest; null: the built-in one")
    runs: int = speed_key(2, "Times each caption is graded, with other seeds, to see how far the grades agree", ge=1)
    temperature: float = speed_key(0.7, "Sampling temperature of the judge", ge=0)
    max_tokens: int = speed_key(64, "Most tokens of an answer", ge=4)


class EvaluationConfig(Section):
    """`conceptcaps captions-eval`: systems side by side on held-out tag sets."""

    num_rows: int = speed_key(200, "Held-out rows to caption, at most", ge=2)
    zero_shot_prompt: str | None = speed_key(None, "Prompt file of the zero-shot system; null: the built-in one")
    language_model: str | None = speed_key(None, "Causal LM, 'embedded' or local path, for perplexity; null: none")
    bert_model: str | None = speed_key(None, "Local path of an encoder for BERTScore; null: no BERTScore")
    bert_layer: int | None = speed_key(None, "Hidden layer of `bert_model`; null: the last", ge=1)
    feature_model: str | None = speed_key(None, "Causal LM, 'embedded' or local path, for MAUVE; null: no MAUVE")
    judge: JudgeConfig = Field(JudgeConfig(), description="Grades by a language model")
