"""The schedule and the optimizer step, against numbers worked out by hand."""

import math

import pytest
import torch
from torch import nn

from rlhf_cli.config.sections import Optim
from rlhf_cli.errors import DivergedError
from rlhf_cli.training.optim import Role, Updater, lr_factor

HALF_ROOT = 0.5 * math.sqrt(2)


@pytest.mark.parametrize(
    ("schedule", "warmup", "final_ratio", "factors"),
    [
        ("constant", 0.0, 0.0, [1, 1, 1, 1]),
        ("constant", 0.5, 0.0, [0.5, 1, 1, 1]),
        ("linear", 0.0, 0.0, [1, 0.75, 0.5, 0.25]),
        ("linear", 0.5, 0.0, [0.5, 1, 1, 0.5]),
        ("linear", 0.0, 0.2, [1, 0.8, 0.6, 0.4]),
        ("cosine", 0.0, 0.0, [1, 0.5 + 0.5 * HALF_ROOT, 0.5, 0.5 - 0.5 * HALF_ROOT]),
        ("cosine", 0.5, 0.1, [0.5, 1, 1, 0.55]),
        ("cosine", 0.0, 1.0, [1, 1, 1, 1]),
        ("linear", 0.99, 0.0, [0.25, 0.5, 0.75, 1]),
        ("linear", 0.03, 0.0, [1, 0.75, 0.5, 0.25]),  # less than half a step of warm-up is none
    ],
)
def test_the_learning_rate_of_each_step(schedule, warmup, final_ratio, factors):
    settings = {"schedule": schedule, "warmup": warmup, "final_ratio": final_ratio}
    assert [lr_factor(step, 4, **settings) for step in range(4)] == pytest.approx(factors, abs=1e-12)


def test_a_run_of_one_step_has_the_peak_rate():
    assert lr_factor(0, 1, schedule="cosine", warmup=0.03, final_ratio=0.0) == 1.0


class Weights(nn.Module):
    """A vector, or a matrix of one row, to be moved by hand-made gradients."""

    def __init__(self, *values: float, matrix: bool = False) -> None:
        super().__init__()
        tensor = torch.tensor(values)
        self.weight = nn.Parameter(tensor[None] if matrix else tensor)

    def pull(self, *gradient: float) -> None:
        self.weight.grad = torch.tensor(gradient).reshape(self.weight.shape)

    def values(self) -> list[float]:
        return self.weight.detach().flatten().tolist()


def optim(**changes) -> Optim:
    # With eps = 1 the first step of Adam is lr * g / (|g| + 1): it shows the size of g.
    return Optim(**{"lr": 0.1, "eps": 1.0, "schedule": "constant", "warmup": 0.0, "clip_norm": 1e6} | changes)


def updater_of(*modules: nn.Module, **changes) -> Updater:
    settings = optim(**changes)
    names = ("policy", "critic")
    roles = [Role(name, module, settings.lr) for name, module in zip(names, modules, strict=False)]
    return Updater(roles, settings, num_steps=4)


def test_gradient_sums_are_divided_by_the_weight():
    model = Weights(0.0, 0.0)
    updater = updater_of(model)
    model.pull(6.0, -1.5)
    facts = updater.step(3.0)
    assert model.values() == pytest.approx([-0.1 * 2 / 3, 0.1 * 0.5 / 1.5])
    assert facts == {"lr": 0.1, "grad_norm": pytest.approx(math.hypot(2.0, 0.5))}
    assert model.weight.grad is None
    assert updater.step_count == 1


def test_each_role_is_clipped_on_its_own():
    policy, critic = Weights(0.0, 0.0), Weights(0.0)
    updater = updater_of(policy, critic, clip_norm=1.0)
    policy.pull(30.0, 40.0)
    critic.pull(0.5)
    facts = updater.step(1.0)
    assert policy.values() == pytest.approx([-0.1 * 0.6 / 1.6, -0.1 * 0.8 / 1.8])
    assert critic.values() == pytest.approx([-0.1 * 0.5 / 1.5])
    assert facts["grad_norm/policy"] == pytest.approx(50.0)  # as it was, before it is cut
    assert facts["grad_norm/critic"] == pytest.approx(0.5)


def test_a_norm_at_the_limit_is_not_clipped():
    model = Weights(0.0)
    updater = updater_of(model, clip_norm=1.0)
    model.pull(1.0)
    updater.step(1.0)
    assert model.values() == pytest.approx([-0.05], abs=1e-7)


def test_matrices_decay_and_vectors_do_not():
    matrix, vector = Weights(2.0, matrix=True), Weights(2.0)
    updater = updater_of(matrix, vector, weight_decay=0.5)
    matrix.pull(0.0)
    vector.pull(0.0)
    updater.step(1.0)
    assert matrix.values() == pytest.approx([2.0 * (1 - 0.1 * 0.5)])
    assert vector.values() == [2.0]


def test_each_role_has_its_own_rate_on_the_common_schedule():
    policy, critic = Weights(0.0), Weights(0.0)
    settings = optim(schedule="linear", betas=(0.0, 0.0))
    updater = Updater([Role("policy", policy, 0.1), Role("critic", critic, 0.4)], settings, num_steps=2)
    rates = []
    for _ in range(2):
        policy.pull(1.0)
        critic.pull(1.0)
        rates.append(updater.step(1.0)["lr"])
    assert rates == [0.1, 0.05]
    assert policy.values() == pytest.approx([-0.05 - 0.025])
    assert critic.values() == pytest.approx([-0.2 - 0.1])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("place", [0, 1])
def test_a_gradient_that_is_not_finite_changes_nothing(bad, place):
    modules = [Weights(1.0, 2.0), Weights(3.0, 4.0)]
    updater = updater_of(*modules)
    for module in modules:
        module.pull(1.0, 1.0)
    modules[place].pull(1.0, bad)
    with pytest.raises(DivergedError, match=f"gradient of the {('policy', 'critic')[place]} .* at step 1"):
        updater.step(1.0)
    assert [module.values() for module in modules] == [[1.0, 2.0], [3.0, 4.0]]
    assert updater.step_count == 0
    assert not updater.state_tensors()


def test_frozen_parameters_belong_to_no_role():
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    assert [name for name, _ in Role("policy", model, 0.1).parameters()] == ["policy.weight"]


def test_moments_come_back_by_name():
    def trained(num_steps: int, start: Updater | None = None) -> tuple[list[float], Updater]:
        model = Weights(1.0, -1.0)
        updater = updater_of(model, eps=1e-8)
        if start is not None:
            model.weight.data = start.roles[0].parameters()[0][1].data.clone()
            saved = {name: value.clone() for name, value in start.state_tensors().items()}
            updater.load_state_tensors(saved, start.step_count)
        for step in range(updater.step_count, num_steps):
            model.pull(1.0 + step, 0.3 * step)
            updater.step(1.0)
        return model.values(), updater

    straight, _ = trained(4)
    _, half = trained(2)
    resumed, updater = trained(4, half)
    assert resumed == straight
    assert updater.step_count == 4
    assert set(updater.state_tensors()) == {
        f"policy.weight/{key}" for key in ("step", "exp_avg", "exp_avg_sq")
    }
