import numpy as np
import pytest
import torch

from conceptcaps.errors import InputError
from conceptcaps.tcav.adapter import of_genre_classifier, of_transformers
from conceptcaps.tcav.classifier import ClassifierShape, GenreClassifier, to_bytes
from conceptcaps.tcav.layers import LayerReader


def test_own_classifier_hears_the_middle_and_knows_its_reach() -> None:
    torch.manual_seed(0)  # a narrow network may be born without a live path from its input
    model = GenreClassifier(ClassifierShape(("a", "b"), sampling_rate=8_000, width=8, num_blocks=3, bottleneck_dim=16))
    adapter = of_genre_classifier(to_bytes(model), duration=2.0)
    inputs = adapter.prepare([np.ones(40_000, np.float32), np.ones(100, np.float32)])
    assert inputs.shape == (2, 16_000)
    assert adapter.classes == ("a", "b")
    reach = adapter.reach(("block1", "bottleneck"))
    assert reach["block1"] < reach["bottleneck"] < 2


def test_transformers_checkpoint_is_read_from_a_folder(tmp_path) -> None:
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForSequenceClassification

    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, classifier_proj_size=8,
        conv_dim=(8, 8), conv_kernel=(10, 8), conv_stride=(8, 8), num_feat_extract_layers=2,
        num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, num_labels=2, id2label={0: "jazz", 1: "rock"},
    )  # fmt: skip
    Wav2Vec2ForSequenceClassification(config).save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000).save_pretrained(tmp_path)
    adapter = of_transformers(str(tmp_path))
    assert adapter.classes == ("jazz", "rock")
    assert len(adapter.layers) == 2
    inputs = adapter.prepare([np.random.default_rng(0).normal(size=8_000).astype(np.float32)] * 2)
    reading = LayerReader(adapter.model, adapter.layers).read(inputs, classes=[1])
    assert reading.logits.shape == (2, 2)
    assert np.abs(reading.gradients[adapter.layers[-1]]).sum() > 0
    assert isinstance(adapter.head, torch.nn.Linear)
    with pytest.raises(InputError, match="cannot be loaded"):
        of_transformers(str(tmp_path / "nowhere"))
