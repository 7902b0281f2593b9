"""What processes find when a model is shared out by twos; started by test_parallel.py with a model's path.

Four processes make two copies of the model.
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from rlhf_cli.config.sections import Distributed, Model, Optim
from rlhf_cli.models.heads import load_classifier, scores_at
from rlhf_cli.models.load import LoadedModel, load_vocabulary, open_policy
from rlhf_cli.models.parallel import fill, gathered, is_shared_out, share_out, whole
from rlhf_cli.models.save import write_weights
from rlhf_cli.models.scoring import logprobs_at
from rlhf_cli.run.directory import digest_path
from rlhf_cli.run.ranks import Ranks, join, leave
from rlhf_cli.training.optim import Role, Updater

ROWS = torch.arange(4 * 9).view(4, 9) % 50 + 5


def policy_loss(loaded: LoadedModel, row: int) -> Tensor:
    ids = ROWS[row : row + 1]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return -logprobs_at(loaded.model, inputs, torch.arange(8), ids[0, 1:]).sum()


def score_loss(loaded: LoadedModel, row: int) -> Tensor:
    ids = ROWS[row : row + 1]
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return scores_at(loaded.core, inputs, torch.tensor([8])).square().sum()


def num_held(module: nn.Module) -> int:
    parts = (p.to_local() if isinstance(p, DTensor) else p for p in module.parameters())
    return sum(part.numel() for part in parts)


def largest_difference(shared: nn.Module, plain: nn.Module, *, of_gradient: bool) -> float:
    named = dict(plain.named_parameters())
    differences = []
    for name, parameter in shared.named_parameters():
        mine, other = (parameter.grad, named[name].grad) if of_gradient else (parameter, named[name])
        assert mine is not None
        assert other is not None
        differences.append(float((whole(mine.detach()) - other).abs().max()))
    return max(differences)


def steps_agree(shared: LoadedModel, plain: LoadedModel, loss_of, ranks: Ranks) -> None:
    """Take two optimizer steps on four rows: shared out over 2 or 4 processes, and all four in this one."""
    optim = Optim(lr=1e-2, weight_decay=0.1, warmup=0.0)
    together = Updater([Role("model", shared.model, 1e-2)], optim, 2, ranks)
    alone = Updater([Role("model", plain.model, 1e-2)], optim, 2)
    assert together.is_shared_out
    for _ in range(2):
        for row in range(ranks.index, 4, ranks.size):
            loss_of(shared, row).backward()
        for row in range(4):
            loss_of(plain, row).backward()
        facts, expected = together.step(4.0), alone.step(4.0)
        assert abs(facts["grad_norm"] - expected["grad_norm"]) <= 1e-5 * expected["grad_norm"]
    assert largest_difference(shared.model, plain.model, of_gradient=False) <= 1e-5


def main(path: str, ranks: Ranks, settings: Distributed) -> None:
    section = Model(path=path)
    vocabulary = load_vocabulary(section)
    shared, plain = (open_policy(section, vocabulary, 0) for _ in range(2))
    share_out([(shared, shared.model)], settings, ranks)
    assert is_shared_out(shared.model)
    assert all(isinstance(parameter, DTensor) for parameter in shared.model.parameters())
    assert num_held(shared.model) <= 0.51 * num_held(plain.model)
    with torch.no_grad(), gathered(shared.model):
        for row in range(1 + ranks.index):  # at a pace of their own
            assert torch.equal(policy_loss(shared, row), policy_loss(plain, row))
        if ranks.leads:
            for loaded, folder in ((shared, "shared"), (plain, "plain")):
                write_weights(loaded, Path(folder))
            assert digest_path(Path("shared")) == digest_path(Path("plain"))
    assert num_held(shared.model) <= 0.51 * num_held(plain.model)
    steps_agree(shared, plain, policy_loss, ranks)

    parameter = next(shared.model.parameters())
    values = [
        torch.randn(parameter.shape, generator=torch.Generator().manual_seed(rank)) for rank in range(4)
    ]
    with torch.no_grad():
        fill(parameter, values[ranks.index], ranks)
    assert torch.equal(whole(parameter.detach()), values[0])

    heads = [load_classifier(section, vocabulary, new_head_seed=1) for _ in range(2)]
    share_out([(heads[0], heads[0].core.base_model)], settings, ranks)
    steps_agree(heads[0], heads[1], score_loss, ranks)


if __name__ == "__main__":
    main(sys.argv[1], join(), Distributed(strategy="fsdp", shard_size=2))
    leave(0)
