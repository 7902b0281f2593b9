"""Scalar heads: how fresh ones begin, where scores are read, and the critic that equals the reward model."""

import json
from pathlib import Path

import pytest
import torch
from tiny_models import build, saved, stir, vocabulary
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from rlhf_cli.config.sections import Lora, Model
from rlhf_cli.errors import DataError
from rlhf_cli.models.heads import (
    Critic,
    ScoreScale,
    last_token_scores,
    load_classifier,
    load_reward_model,
    open_critic,
    read_score_scale,
    score_head,
)
from rlhf_cli.models.load import LoadedModel, open_policy
from rlhf_cli.models.save import save_model

LENGTHS = [9, 5, 7]
IDS = torch.full((3, 9), 1)
for row, length in enumerate(LENGTHS):
    IDS[row, :length] = torch.randint(2, 258, (length,), generator=torch.Generator().manual_seed(row))
    IDS[row, length - 1] = 0
ATTENTION = (torch.arange(9) < torch.tensor(LENGTHS)[:, None]).long()
FAMILIES = ["llama", "qwen2", "qwen3", "gemma2", "gpt2", "neox", "mistral"]


@pytest.fixture(params=FAMILIES)
def classifier(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    return load_classifier(Model(path=saved(tmp_path, request.param)), vocabulary(), new_head_seed=3)


def scores(loaded: LoadedModel, input_ids: Tensor = IDS, attention_mask: Tensor = ATTENTION) -> Tensor:
    with torch.no_grad():
        return last_token_scores(loaded.model.eval(), input_ids, attention_mask)


def values(critic: Critic, input_ids: Tensor = IDS, attention_mask: Tensor = ATTENTION) -> Tensor:
    """Read a critic at every token -> [B, T]."""
    inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
    told: Tensor = critic(inputs, torch.arange(input_ids.numel()))
    return told.view(input_ids.shape)


def test_fresh_heads_have_unit_scores(tmp_path: Path) -> None:
    """N(0, 1 / sqrt(d + 1)): seeded, and the trunk is the language model's."""
    path = saved(tmp_path, hidden_size=512, num_attention_heads=8)
    heads = [
        score_head(load_classifier(Model(path=path), vocabulary(), new_head_seed=seed).core).weight.detach()
        for seed in (3, 3, 4)
    ]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape == (1, 512)
    assert float(heads[0].std()) == pytest.approx(513**-0.5, rel=0.1)
    assert float(heads[0].mean()) == pytest.approx(0.0, abs=3 / 512)


def test_the_trunk_is_the_language_models(tmp_path: Path) -> None:
    loaded = load_classifier(Model(path=saved(tmp_path)), vocabulary(), new_head_seed=3)
    for name, tensor in build().model.state_dict().items():
        assert torch.equal(loaded.core.model.state_dict()[name], tensor)


def test_scores_are_pooled_as_transformers_does(classifier: LoadedModel, tmp_path: Path) -> None:
    classifier.core.save_pretrained(tmp_path / "again")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "again").eval()
    with torch.no_grad():
        expected = plain(input_ids=IDS, attention_mask=ATTENTION).logits[:, 0]
    torch.testing.assert_close(scores(classifier), expected, rtol=0, atol=1e-6)
    assert scores(classifier).std() > 0.1


def test_scores_do_not_depend_on_padding(classifier: LoadedModel) -> None:
    alone = [scores(classifier, IDS[i : i + 1, :n], ATTENTION[i : i + 1, :n]) for i, n in enumerate(LENGTHS)]
    torch.testing.assert_close(torch.cat(alone), scores(classifier), rtol=0, atol=2e-6)


def test_the_critic_starts_as_the_normalised_reward(classifier: LoadedModel) -> None:
    critic = Critic(classifier, ScoreScale(mean=0.5, std=2.0)).eval()
    everywhere = values(critic).detach()
    last = everywhere.gather(1, torch.tensor(LENGTHS)[:, None] - 1)[:, 0]
    torch.testing.assert_close(last, (scores(classifier) - 0.5) / 2.0, rtol=0, atol=2e-6)
    cut = values(critic, IDS[:1, :4], ATTENTION[:1, :4]).detach()
    torch.testing.assert_close(everywhere[:1, :4], cut, rtol=0, atol=2e-6)


def test_the_critic_owns_each_parameter_once(tmp_path: Path) -> None:
    loaded = load_classifier(Model(path=saved(tmp_path)), vocabulary(), new_head_seed=3)
    assert len(list(Critic(loaded, ScoreScale()).parameters())) == len(list(loaded.core.parameters()))


def reward_run(tmp_path: Path, lora: Lora | None = None) -> tuple[str, Tensor]:
    """Make what train-rm leaves behind; give its path and its scores of the rows."""
    root = tmp_path / "rm"
    loaded = load_classifier(Model(path=saved(tmp_path / "base"), lora=lora), vocabulary(), new_head_seed=3)
    stir(loaded.model)
    expected = scores(loaded)
    root.mkdir()
    save_model(
        loaded.model, loaded.vocabulary, root / "model", adapter_dir=root / "adapter" if lora else None
    )
    parents = [{"role": "model", "path": loaded.path, "digest": loaded.digest}]
    scale = {"score_scale": {"mean": 1.5, "std": 0.5}}
    manifest = {"status": "completed", "argv": [], "parents": parents, "extra": scale}
    (root / "manifest.json").write_text(json.dumps(manifest))
    return str(root), expected


def policy_of(path: Path | str, lora: Lora | None) -> tuple[Model, LoadedModel]:
    section = Model(path=str(path), lora=lora)
    return section, open_policy(section, vocabulary(), 0)


@pytest.mark.parametrize("lora", [None, Lora(rank=4)], ids=["full", "lora"])
def test_a_trained_reward_model_comes_back_with_its_scale(tmp_path: Path, lora: Lora | None) -> None:
    path, expected = reward_run(tmp_path, lora)
    reward = load_reward_model(path)
    assert reward.scale == ScoreScale(1.5, 0.5)
    torch.testing.assert_close(scores(reward.loaded), expected, rtol=0, atol=1e-5)
    assert not any(p.requires_grad for p in reward.loaded.model.parameters())
    assert not reward.loaded.model.training


@pytest.mark.parametrize("reward_lora", [None, Lora(rank=2)], ids=["full reward", "lora reward"])
@pytest.mark.parametrize("lora", [None, Lora(rank=4)], ids=["full", "lora"])
def test_a_critic_from_a_reward_model(tmp_path: Path, lora: Lora | None, reward_lora: Lora | None) -> None:
    path, expected = reward_run(tmp_path, reward_lora)
    section, policy = policy_of(tmp_path / "base", lora)
    critic = open_critic(section, policy, load_reward_model(path, policy), seed=0).eval()
    last = values(critic).detach().gather(1, torch.tensor(LENGTHS)[:, None] - 1)[:, 0]
    torch.testing.assert_close(last, (expected - 1.5) / 0.5, rtol=0, atol=1e-5)
    trainable = [name for name, p in critic.named_parameters() if p.requires_grad]
    assert trainable
    assert (lora is None) == any("embed_tokens" in name for name in trainable)
    assert any("score" in name for name in trainable)


def test_a_trained_head_of_an_adapter_learns(tmp_path: Path) -> None:
    path, _ = reward_run(tmp_path)
    section, policy = policy_of(tmp_path / "base", Lora(rank=4))
    reward = load_reward_model(path, policy)
    frozen = scores(reward.loaded)
    critic = open_critic(section, policy, reward, seed=0)
    before = values(critic).detach()
    stir(critic)
    assert not torch.allclose(values(critic).detach(), before)
    assert torch.equal(scores(reward.loaded), frozen)
    values(critic).sum().backward()
    assert all(p.grad is not None for p in critic.parameters() if p.requires_grad)


def test_a_critic_of_its_own(tmp_path: Path) -> None:
    section, policy = policy_of(saved(tmp_path), None)
    one, other = (open_critic(section, policy, None, seed=seed) for seed in (0, 1))
    assert one.scale == ScoreScale()
    assert not torch.equal(values(one), values(other))


def test_a_language_model_is_no_reward_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no trained score head"):
        load_reward_model(saved(tmp_path))
    assert read_score_scale(str(tmp_path)) is None
