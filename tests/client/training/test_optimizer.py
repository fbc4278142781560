from __future__ import annotations

import math

import pytest
import torch

from client.training.optimizer import make_optimizer
from common.errors import ConfigError
from common.tasks import default_learning_rate


def run(optimizer, steps=6):
    generator = torch.Generator().manual_seed(1)
    theta = torch.randn(9, generator=generator)
    for _ in range(steps):
        optimizer(theta, torch.randn(9, generator=generator))
    return theta


def with_torch(make):
    def step(theta, gradient):
        if step.parameter is None:
            step.parameter = torch.nn.Parameter(theta)
            step.optimizer = make([step.parameter])
        step.parameter.grad = gradient
        step.optimizer.step()

    step.parameter = None
    return step


@pytest.mark.parametrize(
    ("name", "oracle"),
    [
        ("sgd", lambda p: torch.optim.SGD(p, lr=0.1)),
        ("momentum", lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
        ("adam", lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.9, 0.99))),
    ],
)
def test_steps_equal_those_of_torch(name, oracle):
    torch.testing.assert_close(run(make_optimizer(name, 0.1).step), run(with_torch(oracle)))


def test_scalar_adam_keeps_the_proportions_of_the_gradient():
    theta, gradient = torch.zeros(4), torch.tensor([1.0, -2.0, 3.0, 0.0])
    make_optimizer("scalar-adam", 0.02).step(theta, gradient)
    torch.testing.assert_close(theta, -0.02 * gradient / gradient.square().mean().sqrt())


def test_scalar_adam_equals_adam_when_all_coordinates_are_equal():
    ours, theirs = torch.zeros(3), torch.zeros(3)
    a, b = make_optimizer("scalar-adam", 0.1), make_optimizer("adam", 0.1)
    for g in (1.0, -0.5, 2.0):
        a.step(ours, torch.full((3,), g))
        b.step(theirs, torch.full((3,), g))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("name", ["scalar-adam", "adam", "momentum", "sgd"])
def test_a_zero_gradient_moves_nothing(name):
    theta = torch.ones(3)
    make_optimizer(name, 0.1).step(theta, torch.zeros(3))
    assert theta.tolist() == [1, 1, 1]


def test_the_callers_gradient_is_left_alone():
    gradient = torch.ones(3)
    optimizer = make_optimizer("momentum", 0.1)
    for _ in range(3):
        optimizer.step(torch.zeros(3), gradient)
    assert gradient.tolist() == [1, 1, 1]


def test_private_local_steps_are_longer_by_the_root_of_the_sites_and_shorter_where_the_signal_is_weak():
    strong, none = 1e9, math.inf
    assert default_learning_rate("scalar-adam", 16, strong) == pytest.approx(0.02 * 4)
    assert default_learning_rate("scalar-adam", 16, 300.0) == pytest.approx(0.02 * 2)
    assert default_learning_rate("scalar-adam", 16, 1.0) == pytest.approx(0.08 / 301)
    assert default_learning_rate("scalar-adam", 16, none) == pytest.approx(0.02)
    assert default_learning_rate("scalar-adam", 16, strong, whole_rows=True) == pytest.approx(0.02)
    assert default_learning_rate("scalar-adam", 16, none, whole_rows=True) == pytest.approx(0.004)
    assert default_learning_rate("momentum", 16, strong, whole_rows=True) == pytest.approx(0.05)
    assert math.isfinite(default_learning_rate("sgd", 3, strong))


def test_an_unknown_optimizer_is_refused():
    for make in (lambda: make_optimizer("lion", 1.0), lambda: default_learning_rate("lion", 1, 1.0)):
        with pytest.raises(ConfigError, match="lion"):
            make()


@pytest.mark.parametrize("name", ["scalar-adam", "adam"])
def test_private_steps_remember_no_gradient_of_before(name):
    """Ten gradients of pure noise move a private run by the sum of ten steps, not by 1.22 times as much."""
    torch.manual_seed(0)
    lengths = {}
    for private in (False, True):
        squares = []
        for seed in range(40):
            generator, theta = torch.Generator().manual_seed(seed), torch.zeros(200)
            optimizer = make_optimizer(name, 0.1, private=private)
            for _ in range(10):
                optimizer.step(theta, torch.randn(200, generator=generator))
            squares.append(float(theta.square().mean()))
        lengths[private] = math.sqrt(sum(squares) / len(squares))
    assert lengths[False] / lengths[True] > 1.1
