"""Sampling on a vLLM server, to which the policy's weights are handed over through a directory both can see.

A server may say that it has taken weights over and have not: a missing tensor leaves the old one in place, tied
embeddings can be reloaded by halves, caches can be stale. So the policy itself scores a few answers after
every hand-over, and the run ends where the two disagree.
"""

import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from rlhf_cli.data.batches import collate
from rlhf_cli.data.encode import EncodedText
from rlhf_cli.errors import UnavailableError
from rlhf_cli.models.device import Autocast
from rlhf_cli.models.load import LoadedModel
from rlhf_cli.models.save import write_weights
from rlhf_cli.models.scoring import labelled_logprobs
from rlhf_cli.rollout.engine import Completion, Sampling
from rlhf_cli.rollout.vllm_server import Sampled
from rlhf_cli.run.ranks import Ranks

_PROOF_TOKENS = 16
# Far from 1, where a server that gives log-probs before the temperature is applied could not be told.
_PROOF_TEMPERATURE = 0.7


class Server(Protocol):
    """What the engine needs of a server; `VllmServer` is one."""

    url: str

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Sampled]: ...

    def load_weights(self, folder: Path, version: str) -> None: ...


class VllmEngine:
    """Samples from `policy` on a server.

    folder          where weights are written for the server, one directory for each hand-over, the last one kept
    proof_prompts   prompts whose answers prove a hand-over
    tolerance       largest difference in nats between the server's log-prob of a token and the policy's
    """

    def __init__(
        self,
        server: Server,
        policy: LoadedModel,
        *,
        folder: Path,
        proof_prompts: Sequence[Sequence[int]],
        tolerance: float,
        autocast: Autocast,
        ranks: Ranks | None = None,
    ) -> None:
        self._server = server
        self._policy = policy
        self._folder = folder
        self._proof_prompts = proof_prompts
        self._tolerance = tolerance
        self._autocast = autocast
        self._ranks = ranks or Ranks()
        self._session = secrets.token_hex(4)  # a server that another run has used must not pass for ours
        self._version = ""
        self._iteration: int | None = None

    def refresh(self, iteration: int) -> None:
        """Hand the policy's weights over, unless those of `iteration` are there already, and prove that it worked.

        One process does it for all.
        """
        if iteration != self._iteration:
            self._version = self._ranks.lead(lambda: self._hand_over(iteration))
            self._iteration = iteration

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """Return one completion per prompt, in order, all of them sampled from the weights handed over last.

        Raises UnavailableError when the server fails or other weights have answered, Preempted when asked to stop.
        """
        return self._generate_from(self._version, prompts, sampling, seeds)

    def _hand_over(self, iteration: int) -> str:
        """Have the server take the policy's weights, prove that it did, and return what it calls them."""
        version = f"{self._session}-{iteration}"
        shutil.rmtree(self._folder, ignore_errors=True)
        folder = self._folder / version
        write_weights(self._policy, folder)
        self._server.load_weights(folder.resolve(), version)
        self._prove(version)
        return version

    def _generate_from(
        self, version: str, prompts: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        sampled = self._server.generate(prompts, sampling, seeds)
        versions = frozenset[str]().union(*(one.versions for one in sampled))
        if versions - {version}:
            raise UnavailableError(
                f"weights {', '.join(sorted(versions))} have answered, not {version}",
                where=self._server.url,
                fix="let no other run use this server, then run the same command again",
            )
        return [one.completion for one in sampled]

    def _prove(self, version: str) -> None:
        sampling = Sampling(_PROOF_TEMPERATURE, 1.0, _PROOF_TOKENS, self._policy.vocabulary.stop_ids)
        seeds = range(len(self._proof_prompts))
        answers = self._generate_from(version, self._proof_prompts, sampling, seeds)
        rows = [
            EncodedText(
                [*prompt, *answer.token_ids],
                [False] * len(prompt) + [True] * len(answer.token_ids),
                len(prompt),
                "proof",
            )
            for prompt, answer in zip(self._proof_prompts, answers, strict=True)
        ]
        theirs = torch.tensor([value for answer in answers for value in answer.logprobs])
        error = float((self._score(rows, _PROOF_TEMPERATURE) - theirs).abs().max())
        if error <= self._tolerance:
            return
        raw_error = float((self._score(rows, 1.0) - theirs).abs().max())
        if raw_error <= self._tolerance:
            message = "the server gives log-probs as they are before the temperature is applied"
            fix = "start it with --logprobs-mode processed_logprobs, as scripts/vllm_server does"
        else:
            message = f"the server's log-probs are up to {error:.2g} nats off the policy's after a hand-over"
            fix = (
                "a model with tied embeddings needs a server that reloads them; "
                "for one that computes in bfloat16 raise rollout.tolerance to 0.1"
            )
        raise UnavailableError(message, where=self._server.url, fix=fix)

    @torch.no_grad()
    def _score(self, rows: Sequence[EncodedText], temperature: float) -> torch.Tensor:
        """Give the policy's log-probs of the trained tokens of rows, in order."""
        policy = self._policy
        batch = collate(rows, policy.vocabulary.pad_id).to(policy.device)
        was_training = policy.model.training
        policy.model.eval()
        try:
            with self._autocast():
                logprobs = labelled_logprobs(
                    policy.model,
                    batch.input_ids,
                    batch.attention_mask,
                    batch.loss_mask,
                    temperature=temperature,
                )
        finally:
            policy.model.train(was_training)
        return logprobs.float().cpu()
