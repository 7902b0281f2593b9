"""Samples the held-out requests from the example's finished runs and grades every answer."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf_cli.config.sections import Source
from rlhf_cli.data.batches import collate, split_by_tokens
from rlhf_cli.data.encode import EncodedPrompt, Encoder
from rlhf_cli.data.episode import Episode, row_of
from rlhf_cli.data.readers import read_prompts
from rlhf_cli.errors import DataError, MissingInputError
from rlhf_cli.models.device import micro_tokens_for
from rlhf_cli.models.heads import ScoreScale, load_reward_model
from rlhf_cli.models.load import LoadedModel, Vocabulary, load_policy_for_sampling
from rlhf_cli.models.scoring import labelled_logprobs, row_of_label
from rlhf_cli.quickstart import gold
from rlhf_cli.quickstart.figures import MODELS, Answer, Results, figures_by_model
from rlhf_cli.reward.trained import TrainedScorer
from rlhf_cli.rollout.engine import Sampling
from rlhf_cli.rollout.episodes import sample_episodes
from rlhf_cli.rollout.transformers_engine import TransformersEngine
from rlhf_cli.run.chance import draw
from rlhf_cli.run.directory import RunDir
from rlhf_cli.run.manifest import Manifest, read_manifest

MOST_REQUESTS = 512
_CHUNK_SIZE = 256


@dataclass(frozen=True, slots=True)
class Comparison:
    """Requests, the answers of each model to them at temperature 1 and greedy, and the figures of both."""

    requests: list[str]
    sampled: dict[str, list[Answer]]
    greedy: dict[str, list[Answer]]
    results: Results


def compare(root: Path) -> Comparison:
    """Have the models of sft, dpo and ppo answer the requests in `root`/data/eval_prompts.jsonl.

    The k-th request has the same random numbers for every model. Raises MissingInputError and DataError where a
    stage has not finished.
    """
    ppo, rm = require_manifest(root / "ppo"), require_manifest(root / "rm")
    seed, num_tokens = ppo.seed or 0, _max_new_tokens(ppo)
    sft = load_policy_for_sampling(str(root / "sft"))
    requests = read_requests(root / "data" / "eval_prompts.jsonl", sft.vocabulary, num_tokens)
    grader = Grader.open(root / "rm", sft)
    sampled: dict[str, list[Answer]] = {}
    greedy: dict[str, list[Answer]] = {}
    for name in MODELS:
        policy = sft if name == "sft" else load_policy_for_sampling(str(root / name))
        for temperature, answers in ((1.0, sampled), (0.0, greedy)):
            sampling = Sampling(temperature, 1.0, num_tokens, policy.vocabulary.stop_ids)
            episodes = answer_requests(policy, requests, sampling, seed)
            ratios = grader.log_ratios(policy, episodes) if temperature else [None] * len(episodes)
            answers[name] = grader.grade(episodes, ratios)
    results = Results(
        seed, len(requests), _held_out_accuracy(rm), figures_by_model(sampled), figures_by_model(greedy)
    )
    return Comparison([str(request.record.prompt) for request in requests], sampled, greedy, results)


def require_manifest(folder: Path) -> Manifest:
    """Read the manifest of a stage's run; raise MissingInputError where there is none."""
    manifest = read_manifest(RunDir(folder))
    if manifest is None:
        raise MissingInputError(f"no run in {folder}", fix="Run scripts/quickstart first.")
    return manifest


def _max_new_tokens(ppo: Manifest) -> int:
    """Give the answers the room they had while PPO trained."""
    rollout = ppo.config.tree["rollout"]
    assert isinstance(rollout, dict)
    return int(rollout["max_new_tokens"])


def _held_out_accuracy(rm: Manifest) -> float | None:
    return rm.result.metrics.get("eval/accuracy") if rm.result else None


def read_requests(path: Path, vocabulary: Vocabulary, max_new_tokens: int) -> list[EncodedPrompt]:
    """Read and encode up to 512 requests that leave room for an answer; raise DataError where there is none."""
    reading = read_prompts([Source(path=str(path), limit=MOST_REQUESTS)])
    encoder = Encoder(vocabulary.tokenizer, stop_ids=vocabulary.stop_ids)
    limit = (vocabulary.max_positions or encoder.max_length) - max_new_tokens
    requests = encoder.prompts(reading.records, max_prompt_length=limit)
    if not requests:
        raise DataError(f"no request has {limit} tokens or fewer", where=str(path))
    return requests


def answer_requests(
    policy: LoadedModel, requests: Sequence[EncodedPrompt], sampling: Sampling, seed: int
) -> list[Episode]:
    vocabulary = policy.vocabulary
    engine = TransformersEngine(
        policy.model,
        vocabulary.pad_id,
        chunk_size=_CHUNK_SIZE,
        autocast=nullcontext,
        max_positions=vocabulary.max_positions,
    )
    seeds = [draw(seed, "table", k) for k in range(len(requests))]
    return sample_episodes(engine, vocabulary.tokenizer, requests, sampling, seeds)


@dataclass(frozen=True, slots=True)
class Grader:
    """Grades answers by gold, by the reward model, and by their distance from SFT."""

    sft: LoadedModel
    scorer: TrainedScorer
    micro_tokens: int

    @staticmethod
    def open(rm: Path, sft: LoadedModel) -> "Grader":
        """Load the reward model, to score on the scale its run stored."""
        reward = load_reward_model(str(rm))
        loaded, scale = reward.loaded, reward.scale or ScoreScale()
        micro_tokens = micro_tokens_for("auto", sft.device)
        scorer = TrainedScorer(
            loaded.model,
            loaded.vocabulary.pad_id,
            mean=scale.mean,
            std=scale.std,
            micro_tokens=micro_tokens,
            autocast=nullcontext,
            device=loaded.device,
        )
        return Grader(sft, scorer, micro_tokens)

    def grade(self, episodes: Sequence[Episode], log_ratios: Iterable[float | None]) -> list[Answer]:
        """Grade answers to requests whose rows hold the right `answer`."""
        rewards = self.scorer.score(episodes)
        return [_graded(*facts) for facts in zip(episodes, rewards, log_ratios, strict=True)]

    def log_ratios(self, policy: LoadedModel, episodes: Sequence[Episode]) -> list[float]:
        """Sum log p_policy - log p_sft over the tokens of each answer, in nats; its mean estimates KL (k1)."""
        if policy is self.sft:
            return [0.0] * len(episodes)
        own, reference = self._logprobs(policy, episodes), self._logprobs(self.sft, episodes)
        return (own - reference).tolist()

    @torch.no_grad()
    def _logprobs(self, policy: LoadedModel, episodes: Sequence[Episode]) -> torch.Tensor:
        """Sum the log-probs of each of N answers -> [N]."""
        rows = [row_of(episode) for episode in episodes]
        sums = torch.zeros(len(rows), dtype=torch.float64)
        for indices in split_by_tokens(range(len(rows)), lambda i: len(rows[i].input_ids), self.micro_tokens):
            batch = collate([rows[i] for i in indices], policy.vocabulary.pad_id).to(policy.device)
            logprobs = labelled_logprobs(policy.model, batch.input_ids, batch.attention_mask, batch.loss_mask)
            places = torch.tensor(indices)[row_of_label(batch.loss_mask).cpu()]
            sums.index_add_(0, places, logprobs.double().cpu())
        return sums


def _graded(episode: Episode, reward: float, log_ratio: float | None) -> Answer:
    prompt, text, answer = str(episode.prompt), episode.completion_text, str(episode.extra["answer"])
    score, parts = gold.score(prompt, text, answer), gold.parts(prompt, text, answer)
    return Answer(text, episode.finished, score, parts, reward, log_ratio)
