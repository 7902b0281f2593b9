"""Under LoRA the roles of PPO stand on one copy of the weights, and answer as if each had its own."""

from pathlib import Path

import pytest
import torch
from test_heads import ATTENTION, FAMILIES, IDS, LENGTHS, policy_of, reward_run, scores, values
from tiny_models import saved, stir
from torch import nn

from rlhf_cli.config.sections import Critic, Lora
from rlhf_cli.models.actor_critic import open_actors
from rlhf_cli.models.heads import load_reward_model, open_critic
from rlhf_cli.models.one_base import adapter_on, classifier_twin

LORA = Lora(rank=2)


def bytes_beside(policy: nn.Module, *others: nn.Module) -> int:
    """Add up what `others` hold that is not the policy's, each piece of memory once."""
    held = {
        p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for m in others for p in m.parameters()
    }
    for parameter in policy.parameters():
        held.pop(parameter.untyped_storage().data_ptr(), None)
    return sum(held.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_twin_shares_every_weight_and_computes_the_same(family: str, tmp_path: Path) -> None:
    _, policy = policy_of(saved(tmp_path, family), LORA)
    twin = classifier_twin(policy.core)
    stir(policy.model)  # the policy's adapters are no part of the twin
    _, fresh = policy_of(tmp_path, None)
    with torch.no_grad():
        hidden, expected = (
            core.base_model(input_ids=IDS, attention_mask=ATTENTION).last_hidden_state
            for core in (twin, fresh.core.eval())
        )
    torch.testing.assert_close(hidden, expected, rtol=0, atol=1e-6)
    assert bytes_beside(policy.model, twin) == twin.score.weight.numel() * 4
    assert not any(p.requires_grad for p in twin.parameters())
    assert any(p.requires_grad for p in policy.model.parameters())


def test_four_roles_hold_one_base(tmp_path: Path) -> None:
    path, expected = reward_run(tmp_path, LORA)
    section, policy = policy_of(tmp_path / "base", LORA)
    reward = load_reward_model(path, policy)
    critic = open_critic(section, policy, reward, seed=0)
    assert reward.on_policy_base
    torch.testing.assert_close(scores(reward.loaded), expected, rtol=0, atol=1e-6)
    base = sum(p.numel() * 4 for n, p in policy.core.named_parameters() if "lora_" not in n)
    adapters = sum(p.numel() * 4 for p in critic.parameters() if p.requires_grad)
    heads = 2 * 32 * 4  # peft keeps the head it replaced
    assert bytes_beside(policy.model, reward.loaded.model, critic) <= 2 * adapters + heads < base / 2


def test_training_the_critic_moves_no_other_role(tmp_path: Path) -> None:
    path, expected = reward_run(tmp_path, LORA)
    section, policy = policy_of(tmp_path / "base", LORA)
    reward = load_reward_model(path, policy)
    critic = open_critic(section, policy, reward, seed=0)
    before = policy.model(input_ids=IDS).logits.detach()
    stir(critic)
    torch.testing.assert_close(scores(reward.loaded), expected, rtol=0, atol=1e-6)
    assert torch.equal(policy.model(input_ids=IDS).logits.detach(), before)


def test_gradients_reach_both_adapters_and_no_base(tmp_path: Path) -> None:
    section, policy = policy_of(saved(tmp_path), LORA)
    critic = open_critic(section, policy, None, seed=0)
    stir(policy.model)
    stir(critic)
    (policy.model(input_ids=IDS).logits.sum() + values(critic).sum()).backward()
    for module in (policy.model, critic):
        for name, parameter in module.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.requires_grad == ("lora_" in name or "modules_to_save" in name), name


def test_a_critic_under_lora_stands_on_a_full_reward_model(tmp_path: Path) -> None:
    path, expected = reward_run(tmp_path)
    section, policy = policy_of(tmp_path / "base", LORA)
    reward = load_reward_model(path, policy)
    critic = open_critic(section, policy, reward, seed=0)
    assert not reward.on_policy_base
    adapters = sum(p.numel() * 4 for p in critic.parameters() if p.requires_grad)
    assert bytes_beside(reward.loaded.model, critic) <= adapters
    last = values(critic).detach().gather(1, torch.tensor(LENGTHS)[:, None] - 1)[:, 0]
    torch.testing.assert_close(last, (expected - 1.5) / 0.5, rtol=0, atol=1e-5)


def test_an_adapter_counts_only_where_its_base_is_the_policys(tmp_path: Path) -> None:
    path, _ = reward_run(tmp_path, LORA)
    _, policy = policy_of(tmp_path / "base", LORA)
    assert adapter_on(path, policy) == Path(path) / "adapter"
    _, whole = policy_of(tmp_path / "base", None)
    assert adapter_on(path, whole) is None
    _, other = policy_of(saved(tmp_path / "other", "qwen2"), LORA)
    assert adapter_on(path, other) is None
    assert adapter_on(str(tmp_path / "base"), policy) is None


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("named", [False, True], ids=["by default", "by name"])
def test_the_reference_is_the_policy_without_adapters(named: bool, lora: Lora | None, tmp_path: Path) -> None:
    """Naming the model the policy starts as costs no second copy under LoRA."""
    section, policy = policy_of(saved(tmp_path), lora)
    inputs = {"input_ids": IDS, "attention_mask": ATTENTION}
    asked = (inputs, torch.tensor([2, 3, 11, 20]), torch.tensor([5, 9, 77, 0]))
    actors = open_actors(
        section, policy, None, Critic(init="policy"), reference=str(tmp_path) if named else None, seed=0,
        precision="float32", temperature=1.0,
    )  # fmt: skip
    before = actors.judge(*asked).logprobs
    stir(policy.model)
    assert (actors.reference is None) == (lora is not None)
    torch.testing.assert_close(actors.reference_logprobs(*asked), before.detach())
    assert not torch.allclose(actors.judge(*asked).logprobs.detach(), before.detach())
