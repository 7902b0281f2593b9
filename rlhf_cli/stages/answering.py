"""The answers that `rlhf collect` has compared: prompts chosen, answers sampled batch by batch, and paired.

Needed while answers are missing; what is stored already needs neither torch nor the models.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from rlhf_cli.config import sections
from rlhf_cli.config.collect_config import CollectConfig
from rlhf_cli.data.decode import completion_text
from rlhf_cli.data.encode import EncodedPrompt, EncodedText, Encoder
from rlhf_cli.data.fields import as_dialog
from rlhf_cli.data.prepare import Prepared
from rlhf_cli.data.readers import read_prompts
from rlhf_cli.data.report import data_report, samples_text
from rlhf_cli.errors import DataError, Preempted, RunConflictError
from rlhf_cli.models.device import autocast_for, num_parameters
from rlhf_cli.models.load import LoadedModel, Vocabulary, load_policy_for_sampling, load_vocabulary
from rlhf_cli.preference.store import Response, Store
from rlhf_cli.records import Prompt
from rlhf_cli.rollout.engine import Engine, Sampling
from rlhf_cli.rollout.transformers_engine import TransformersEngine
from rlhf_cli.run.chance import draw
from rlhf_cli.run.session import Run
from rlhf_cli.stages.ranking import pair_by_score

Slot = tuple[int, int]
"""Whose answer: (candidate, sample)."""


def answer_slots(config: CollectConfig) -> tuple[Slot, ...]:
    """Say whose answers a prompt gets: to compare, one of each candidate or two of the only one; else one of each."""
    if config.kind != "preferences":
        return tuple((index, 0) for index in range(len(config.candidates)))
    if isinstance(config.labeler, sections.RewardLabeler):
        samples = range(config.labeler.samples)
        return tuple((candidate, sample) for candidate in range(len(config.candidates)) for sample in samples)
    return ((0, 0), (1, 0)) if len(config.candidates) == 2 else ((0, 0), (0, 1))


def fill_with_answers(config: CollectConfig, store: Store, run: Run) -> None:
    """Store prompts and answers, as far as they are missing."""
    if not store.prompts():
        prompts = choose_prompts(config)
        prompts.publish(run)
        store.add_prompts([prompt.record for prompt in prompts.train])
    for index in range(len(config.candidates)):
        sample_answers(config, index, store, run)
    store.note("answers", "complete")


def fill_with_pairs(config: CollectConfig, store: Store, run: Run) -> None:
    """Store prompts, answers and pairs, as far as they are missing."""
    fill_with_answers(config, store, run)
    if isinstance(config.labeler, sections.RewardLabeler):
        pair_by_score(config.labeler, config, store, run)
    else:
        one, two = answer_slots(config)
        store.add_pairs(store.unpaired(one, two))
    if not store.num_pairs(identical=False):
        raise DataError(
            "both answers are the same in every pair",
            where="candidates",
            fix="raise candidates.0.temperature, or give two different candidates; then start anew with --fresh",
        )
    store.note("pairs", "complete")


def choose_prompts(config: CollectConfig) -> Prepared[EncodedPrompt]:
    """Read the prompts that every candidate has room to answer, up to `limit`."""
    reading = read_prompts(config.prompts, on_bad_row=config.on_bad_row, seed=config.seed, deduplicate=True)
    records = [_as_sampled(record, config.template) for record in reading.records]
    encoded, reports, samples = [], [], ""
    for path, revision in dict.fromkeys((c.path, c.revision) for c in config.candidates):
        encoder = _encoder(config, load_vocabulary(sections.Model(path=path, revision=revision)))
        encoded = encoder.prompts(records, max_prompt_length=encoder.max_length)
        records = [prompt.record for prompt in encoded]
        reports.append(data_report(f"prompts for {path}", reading, encoder, num_kept=len(records)))
        samples += samples_text([_as_row(prompt) for prompt in encoded[:5]], encoder.tokenizer)
    if not records:
        raise DataError(
            "no prompt is left to answer",
            where="prompts",
            fix="raise max_prompt_length, or lower generation.max_new_tokens: what a model reads holds both",
        )
    return Prepared(encoded[: config.limit], [], reports, samples, reading.rejected)


def _as_sampled(record: Prompt, template: str) -> Prompt:
    """Make plain text a user turn where the template is to be applied, so that the export says what was asked."""
    prompt = as_dialog(record.prompt, "user") if template == "chat" else record.prompt
    return dataclasses.replace(record, prompt=prompt)


def _as_row(prompt: EncodedPrompt) -> EncodedText:
    num_prompt = len(prompt.input_ids)
    return EncodedText(prompt.input_ids, [False] * num_prompt, num_prompt, prompt.record.origin)


def _encoder(config: CollectConfig, vocabulary: Vocabulary) -> Encoder:
    """Give an encoder whose limit leaves room for a whole answer."""
    limit = config.max_prompt_length
    if vocabulary.max_positions is not None:
        limit = min(limit, vocabulary.max_positions - config.generation.max_new_tokens)
    return Encoder(
        vocabulary.tokenizer,
        stop_ids=vocabulary.stop_ids,
        template=config.template,
        max_length=limit,
        over_length="drop",
    )


def sample_answers(config: CollectConfig, index: int, store: Store, run: Run) -> None:
    """Sample what is missing of one candidate's answers; each batch is stored before the next one starts."""
    samples = [sample for candidate, sample in answer_slots(config) if candidate == index]
    missing = [(prompt_id, sample) for sample in samples for prompt_id in store.unanswered(index, sample)]
    if not missing:
        return
    answerer = Answerer.open(config, index, store, run)
    # Like lengths together need no padding; with the longest first, too little memory shows at once.
    missing.sort(key=lambda slot: -len(answerer.prompts[slot[0] - 1]))
    size, total = config.generation.batch_size, len(samples) * len(answerer.prompts)
    num_done = total - len(missing)
    run.say(f"candidate {index}: {len(missing)} answers to sample from {config.candidates[index].path}")
    with run.progress(total, start=num_done) as bar:
        for start in range(0, len(missing), size):
            try:
                responses = answerer.answer(missing[start : start + size])
            except Preempted:
                saved = f"{num_done + start} of {total} answers of candidate {index} saved"
                raise Preempted(saved, fix="run the same command again: it continues there") from None
            store.add_responses(responses)
            bar.update(num_done + start + len(responses))


@dataclass(frozen=True)
class Answerer:
    """A candidate that answers prompts by their id; `prompts[id - 1]` are the token ids of one."""

    index: int
    candidate: sections.Candidate
    loaded: LoadedModel
    prompts: list[list[int]]
    engine: Engine
    sampling: Sampling
    seed: int

    @classmethod
    def open(cls, config: CollectConfig, index: int, store: Store, run: Run) -> Self:
        """Load a candidate. Raises RunConflictError when other weights have answered in its name."""
        candidate = config.candidates[index]
        loaded = load_policy_for_sampling(candidate.path, candidate.revision)
        if store.digests(index) - {loaded.digest}:
            raise RunConflictError(
                f"the weights in {candidate.path} changed after they had answered some of the prompts",
                where=f"candidates.{index}.path",
                fix="restore the weights, or start anew with --fresh or another run_dir",
            )
        run.add_parent(f"candidate {index}", candidate.path, loaded.digest)
        encoder = _encoder(config, loaded.vocabulary)
        prompts = encoder.prompts(store.prompts(), max_prompt_length=encoder.max_length)
        engine = TransformersEngine(
            loaded.model,
            loaded.vocabulary.pad_id,
            chunk_size=config.generation.batch_size,
            autocast=autocast_for("auto", loaded.device, num_parameters(loaded.model)),
            max_positions=loaded.vocabulary.max_positions,
            should_stop=lambda: run.stop.requested,
        )
        sampling = Sampling(
            temperature=candidate.temperature,
            top_p=candidate.top_p,
            max_new_tokens=config.generation.max_new_tokens,
            stop_ids=loaded.vocabulary.stop_ids,
        )
        ids = [prompt.input_ids for prompt in prompts]
        return cls(index, candidate, loaded, ids, engine, sampling, config.seed)

    def answer(self, slots: Sequence[tuple[int, int]]) -> list[Response]:
        """Answer each (prompt id, sample), with a seed of its own. Raises Preempted when asked to stop."""
        vocabulary = self.loaded.vocabulary
        prompts = [self.prompts[prompt_id - 1] for prompt_id, _ in slots]
        seeds = [draw(self.seed, "answer", self.index, *slot) for slot in slots]
        completions = self.engine.generate(prompts, self.sampling, seeds)
        return [
            Response(
                prompt_id=prompt_id,
                candidate=self.index,
                sample=sample,
                model=self.candidate.path,
                model_digest=self.loaded.digest,
                temperature=self.candidate.temperature,
                top_p=self.candidate.top_p,
                seed=seed,
                finish_reason="stop" if completion.finished else "length",
                text=completion_text(vocabulary.tokenizer, prompt, completion.token_ids, vocabulary.stop_ids),
                max_new_tokens=self.sampling.max_new_tokens,
            )
            for (prompt_id, sample), prompt, seed, completion in zip(
                slots, prompts, seeds, completions, strict=True
            )
        ]
