import numpy as np
import pytest
import torch
from torch import nn

from conceptcaps.errors import InputError
from conceptcaps.tcav.layers import LayerReader, randomised


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 5, padding=2)
        self.second = nn.Conv1d(6, 6, 3, padding=1)
        self.dense = nn.Sequential(nn.Linear(6, 8), nn.Tanh())
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.second(torch.relu(self.conv(x))))
        return self.head(self.dense(h.mean(-1)) ** 2)


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    return Net()


def test_class_gradients_equal_autograd_per_example(net: Net) -> None:
    x = torch.randn(7, 4, 20)
    reading = LayerReader(net, ["second", "dense"]).read(x, classes=range(3))
    for i in range(7):
        for c in range(3):
            h = net.second(torch.relu(net.conv(x[i : i + 1]))).detach().requires_grad_()
            d = net.dense(torch.tanh(h).mean(-1))
            logit = net.head(d**2)[0, c]
            by_second, by_dense = torch.autograd.grad(logit, [h, d])
            np.testing.assert_allclose(reading.gradients["second"][c, i], by_second[0].sum(-1), atol=1e-5)
            np.testing.assert_allclose(reading.gradients["dense"][c, i], by_dense[0], atol=1e-5)


def test_pooled_gradient_is_the_derivative_for_a_step_at_every_position(net: Net) -> None:
    x, step = torch.randn(3, 4, 20).double(), 1e-5
    net.double()
    direction = torch.randn(6).double()
    reading = LayerReader(net, ["second"]).read(x, classes=[1])
    handle = net.second.register_forward_hook(lambda _m, _i, out: out + step * direction[:, None])
    moved = net(x)[:, 1].detach()
    handle.remove()
    expected = (moved - net(x)[:, 1].detach()) / step
    np.testing.assert_allclose(reading.gradients["second"][0] @ direction.numpy(), expected, atol=1e-4)


def test_frozen_weights_and_nested_calls_leave_no_trace(net: Net) -> None:
    net.requires_grad_(False)
    reading = LayerReader(net, ["conv"]).read(torch.randn(2, 4, 20), classes=[0])
    assert reading.gradients["conv"].shape == (1, 2, 6)
    assert reading.activations["conv"].shape == (2, 6)
    assert not net.conv._forward_hooks


def test_unknown_layer_lists_those_that_exist(net: Net) -> None:
    with pytest.raises(InputError, match=r"'densee'.*Did you mean 'dense'.*conv, second"):
        LayerReader(net, ["densee"])


def test_time_reach_counts_what_a_position_sees_and_pooling_does_not_widen_it(net: Net) -> None:
    reach = LayerReader(net, ["conv", "second", "dense"]).time_reach(torch.randn(2, 4, 40), rate=10)
    assert reach == {"conv": 0.5, "second": 0.7, "dense": 0.7}


def test_randomised_changes_the_head_for_a_while_only(net: Net) -> None:
    before = net.head.weight.detach().clone()
    with randomised(net.head, seed=1):
        assert not torch.allclose(net.head.weight, before)
    assert torch.equal(net.head.weight, before)


def test_transformers_classifier_is_read_through_its_named_layers() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ASTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        patch_size=8, frequency_stride=8, time_stride=8, max_length=32, num_mel_bins=16, num_labels=3,
    )  # fmt: skip
    model = transformers.ASTForAudioClassification(config)
    layers = [name for name, _ in model.named_modules() if name.endswith(("layer.1", "layers.1"))]
    assert layers
    reading = LayerReader(model, [*layers, "classifier.layernorm"]).read(torch.randn(2, 32, 16), classes=[0, 2])
    assert reading.logits.shape == (2, 3)
    for layer in (*layers, "classifier.layernorm"):
        assert reading.activations[layer].shape == (2, 16)
        assert np.abs(reading.gradients[layer]).sum() > 0
