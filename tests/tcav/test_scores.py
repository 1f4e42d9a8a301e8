import numpy as np
import pytest
import torch
from torch import nn

from conceptcaps.errors import InputError
from conceptcaps.tcav.cav import Problems, fit_cavs
from conceptcaps.tcav.layers import LayerReader
from conceptcaps.tcav.scores import check_gradients, directional_derivatives, magnitude_scores, sign_scores


def test_directional_derivatives_equal_autograd_along_the_vector() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 4), nn.Tanh(), nn.Linear(4, 3))
    x = torch.randn(11, 5)
    vectors = torch.nn.functional.normalize(torch.randn(6, 7), dim=1)
    gradients = LayerReader(model, ["1"]).read(x, classes=[2]).gradients["1"][0]
    found = directional_derivatives(gradients, vectors.double().numpy())
    hidden = model[1](model[0](x)).detach()
    for i in range(11):
        for k in range(6):
            slope = torch.func.jvp(lambda h: model[4](model[3](model[2](h)))[2], (hidden[i],), (vectors[k],))[1]
            assert abs(found[i, k] - slope.item()) < 1e-5


def test_scores() -> None:
    derivatives = np.array([[1.0, -1, 0], [3, -1, 0], [-1, 2, 0], [1, 0, 0]])
    np.testing.assert_allclose(sign_scores(derivatives), [0.75, 0.25, 0])
    np.testing.assert_allclose(magnitude_scores(derivatives), [5 / 6, 0.5, np.nan])


def test_scores_do_not_change_with_the_scale_of_gradients() -> None:
    derivatives = np.random.default_rng(0).normal(size=(50, 4))
    np.testing.assert_allclose(sign_scores(3e4 * derivatives), sign_scores(derivatives))
    np.testing.assert_allclose(magnitude_scores(3e4 * derivatives), magnitude_scores(derivatives))


def test_head_that_ignores_a_direction_has_no_derivative_along_it() -> None:
    torch.manual_seed(1)
    head = nn.Linear(6, 2, bias=False)
    with torch.no_grad():
        head.weight[:, 3] = 0
    model = nn.Sequential(nn.Identity(), head)
    x = torch.randn(300, 6)
    concept = np.arange(300) < 150
    x[concept, 3] += 4.0  # the concept lives in unit 3 only
    gradients = LayerReader(model, ["0"]).read(x, classes=[0]).gradients["0"][0]
    problems = Problems(np.arange(300)[None], concept[None], np.zeros((1, 300), bool))
    pattern = fit_cavs(x.numpy(), problems, method="pattern")
    used = np.zeros((1, 6))
    used[0, 0] = 1
    along_concept = np.abs(directional_derivatives(gradients, pattern.vectors)).mean()
    assert along_concept < 0.1 * np.abs(directional_derivatives(gradients, used)).mean()


def test_zero_gradients_are_refused() -> None:
    with pytest.raises(InputError, match=r"'block1', class 'jazz'.*all-zero"):
        check_gradients(np.zeros((4, 3)), "block1", "jazz")
    with pytest.raises(InputError, match="not finite"):
        check_gradients(np.array([[np.nan]]), "block1", "jazz")
