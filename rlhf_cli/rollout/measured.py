"""What PPO knows about a batch of sampled answers before its first update, and how that is cut into steps.

N answers, R response columns (column j is the j-th token of an answer), B answers of a micro-batch.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rlhf_cli.algo.ppo import kl_k1
from rlhf_cli.data.batches import AnswerBatch, Layout
from rlhf_cli.data.encode import EncodedPrompt, EncodedText
from rlhf_cli.data.episode import Episode
from rlhf_cli.models.actor_critic import ActorCritic
from rlhf_cli.rollout.advantages import Estimate
from rlhf_cli.run.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Measured:
    """What the models say about N answers: all [N, R], nats; `mask` is True on response tokens.

    `values` is None without a critic.
    """

    rows: Sequence[EncodedText]
    mask: Tensor
    logprobs: Tensor
    reference_logprobs: Tensor
    values: Tensor | None
    entropy: Tensor

    @property
    def kl(self) -> float:
        """Estimate the divergence from the reference in nats per answer (k1, summed over tokens)."""
        return float(kl_k1(self.logprobs, self.reference_logprobs, self.mask).sum(1).mean())


@dataclass(frozen=True, slots=True)
class PpoBatch:
    """B answers of one minibatch: tokens, and what was known before the first update, all [B, R].

    `trains` says whose loss it is for: the policy's, with that of a critic on its trunk, or that of a critic of its
    own. `values` and `returns` are None without a critic. `first` is True for the first minibatch of an iteration,
    where the policy is still the one that sampled.
    """

    answers: AnswerBatch
    mask: Tensor
    logprobs: Tensor
    reference_logprobs: Tensor
    advantages: Tensor
    values: Tensor | None
    returns: Tensor | None
    loss_kl_coef: float
    first: bool
    trains: Literal["policy", "critic"] = "policy"


@dataclass(frozen=True, slots=True)
class PpoStep:
    """The micro-batches of one optimizer step; the last `num_idle` are counted by other processes."""

    batches: Sequence[PpoBatch]
    num_idle: int


@dataclass(frozen=True, slots=True)
class Cutter:
    """How answers are put into micro-batches of at most `micro_tokens` tokens: in which layout, where, for whom."""

    layout: Layout
    micro_tokens: int
    device: torch.device
    ranks: Ranks = dataclasses.field(default_factory=Ranks)

    def collate(self, rows: Sequence[EncodedText]) -> AnswerBatch:
        """Make one micro-batch."""
        return self.layout.collate(rows).to(self.device)

    def cut(self, rows: Sequence[EncodedText], indices: Sequence[int]) -> list[list[int]]:
        """Split `indices` into micro-batches; where prompts are shared, answers to one prompt stay together."""

        def num_tokens(bundle: list[int]) -> int:
            prompt = rows[bundle[0]].num_prompt
            return prompt + sum(len(rows[i].input_ids) - prompt for i in bundle)

        bundles = self._bundles(rows, indices) if self.layout.packed else [[i] for i in indices]
        parts = self.layout.cut(bundles, num_tokens, self.micro_tokens, self.ranks.size)
        return [[i for bundle in part for i in bundle] for part in parts]

    def _bundles(self, rows: Sequence[EncodedText], indices: Sequence[int]) -> list[list[int]]:
        """Put answers to one prompt together, as many as the budget allows."""
        by_prompt: dict[tuple[int, ...], list[list[int]]] = defaultdict(list)
        room: dict[tuple[int, ...], int] = {}
        for i in indices:
            size = rows[i].num_prompt
            prompt, needed = tuple(rows[i].input_ids[:size]), len(rows[i].input_ids) - size
            if needed > room.get(prompt, 0):
                by_prompt[prompt].append([])
                room[prompt] = self.micro_tokens - size
            by_prompt[prompt][-1].append(i)
            room[prompt] -= needed
        return [bundle for bundles in by_prompt.values() for bundle in bundles]


@torch.no_grad()
def measure(actors: ActorCritic, rows: Sequence[EncodedText], cutter: Cutter) -> Measured:
    """Ask policy, reference and critic about N answers; processes share the work, and all get everything."""
    device = cutter.device
    lengths = torch.tensor([len(row.input_ids) - row.num_prompt for row in rows])
    mask = (torch.arange(int(lengths.max())) < lengths[:, None]).to(device)
    logprobs, reference, entropy, values = (torch.zeros(mask.shape, device=device) for _ in range(4))
    for indices, counts in cutter.ranks.turns(cutter.cut(rows, range(len(rows)))):
        answers = cutter.collate([rows[i] for i in indices])
        asked = (answers.inputs, answers.predictor_index, answers.target_ids)
        judged = actors.judge(*asked, with_entropy=True)
        told = [
            (logprobs, judged.logprobs),
            (reference, actors.reference_logprobs(*asked)),
            (entropy, judged.entropy),
            (values, actors.values(*asked[:2]) if actors.has_own_critic else judged.values),
        ]
        for column, flat in told:
            if flat is not None and counts:
                column[indices] = to_columns(flat, mask[indices])
    for column in (logprobs, reference, entropy, values):
        cutter.ranks.add_up(column)
    return Measured(rows, mask, logprobs, reference, values if actors.critic else None, entropy)


def sampled_logprobs(episodes: Sequence[Episode], mask: Tensor) -> Tensor:
    """Lay out what the engine said of N answers where `mask` [N, R] is True."""
    flat = [value for episode in episodes for value in episode.logprobs]
    return to_columns(torch.tensor(flat, device=mask.device), mask)


def cut_steps(
    measured: Measured,
    estimate: Estimate,
    *,
    minibatches: Iterable[Sequence[int]],
    cutter: Cutter,
    has_own_critic: bool,
) -> list[PpoStep]:
    """Make one optimizer step of each minibatch of answer indices, cut into micro-batches: this process's share.

    Each comes once more for a critic of its own: policy and critic never hold their activations at the same time.
    """

    def batch(indices: list[int], *, first: bool) -> PpoBatch:
        width = int(measured.mask[indices].sum(1).max())

        def part(column: Tensor) -> Tensor:
            return column[indices, :width]

        return PpoBatch(
            answers=cutter.collate([measured.rows[i] for i in indices]),
            mask=part(measured.mask),
            logprobs=part(measured.logprobs),
            reference_logprobs=part(measured.reference_logprobs),
            advantages=part(estimate.advantages),
            values=None if measured.values is None else part(measured.values),
            returns=None if estimate.returns is None else part(estimate.returns),
            loss_kl_coef=estimate.loss_kl_coef,
            first=first,
        )

    steps = []
    for number, minibatch in enumerate(minibatches):
        shares = cutter.ranks.deal(cutter.cut(measured.rows, minibatch))
        num_idle = sum(not counts for _, counts in shares)
        step = [batch(part, first=number == 0) for part, _ in shares]
        if has_own_critic:
            step = [both for each in step for both in (each, dataclasses.replace(each, trains="critic"))]
        steps.append(PpoStep(step, num_idle * (2 if has_own_critic else 1)))
    return steps


def full_row(prompt: EncodedPrompt, num_tokens: int) -> EncodedText:
    """Make up an answer of `num_tokens` tokens to a prompt; which tokens they are does not matter."""
    ids, size = prompt.input_ids, len(prompt.input_ids)
    return EncodedText([*ids, *ids[-1:] * num_tokens], [False] * size + [True] * num_tokens, size, "made up")


def rehearsal_batch(rows: Sequence[EncodedText], cutter: Cutter, *, with_values: bool) -> PpoBatch:
    """Make the largest micro-batch of answers of one length; what is known about them is zero."""
    parts = cutter.cut(rows, range(len(rows)))
    chosen = [rows[i] for i in max(parts, key=lambda part: sum(len(rows[i].input_ids) for i in part))]
    known = torch.zeros(len(chosen), len(chosen[0].input_ids) - chosen[0].num_prompt, device=cutter.device)
    return PpoBatch(
        answers=cutter.collate(chosen),
        mask=torch.ones_like(known, dtype=torch.bool),
        logprobs=known,
        reference_logprobs=known,
        advantages=known,
        values=known if with_values else None,
        returns=known if with_values else None,
        loss_kl_coef=0.0,
        first=False,
    )


def to_columns(flat: Tensor, mask: Tensor) -> Tensor:
    """Place values of response tokens [n], answer by answer, where `mask` [B, R] is True; differentiable."""
    return torch.zeros_like(mask, dtype=flat.dtype).masked_scatter(mask, flat)
