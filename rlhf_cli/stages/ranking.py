"""A reward model as labeler: it scores all answers to a prompt, and the scores choose and decide the pairs."""

import statistics
from collections.abc import Iterator, Sequence

from rlhf_cli.config.collect_config import CollectConfig
from rlhf_cli.config.collect_sections import RewardLabeler
from rlhf_cli.data.encode import EncodedText, Encoder
from rlhf_cli.data.episode import Episode
from rlhf_cli.errors import DataError, Preempted
from rlhf_cli.models.device import autocast_for, micro_tokens_for, num_parameters
from rlhf_cli.models.heads import load_reward_model
from rlhf_cli.models.load import LoadedModel
from rlhf_cli.preference.ranking import Answer, answers, can_be_scored, choose_pairs, keep_scores
from rlhf_cli.preference.store import Store
from rlhf_cli.records import Demonstration, Message, Text
from rlhf_cli.reward.trained import TrainedScorer
from rlhf_cli.run.session import Run

_SCORED_AT_ONCE = 512
_NO_LIMIT = 2**31


def pair_by_score(section: RewardLabeler, config: CollectConfig, store: Store, run: Run) -> None:
    """Score what has no score yet and store the pairs that follow. Raises DataError when none do."""
    loaded = load_reward_model(section.path).loaded
    run.add_parent("reward model", section.path, loaded.digest)
    store.add_labeler(section.path, "reward", {"digest": loaded.digest})
    waiting = [it for it in answers(store, section.path) if it.score is None and can_be_scored(it)]
    with run.progress(len(waiting)) as bar:
        for start in range(0, len(waiting), _SCORED_AT_ONCE):
            if run.stop.requested:
                raise Preempted(
                    "interrupted while scoring", fix="run the same command again: it goes on there"
                )
            batch = waiting[start : start + _SCORED_AT_ONCE]
            keep_scores(store, section.path, _scores(batch, loaded, config, store))
            bar.update(start + len(batch))
    choice = choose_pairs(
        answers(store, section.path), section.strategy, min_margin=section.min_margin, seed=config.seed
    )
    if not choice.pairs:
        raise DataError(
            f"no two answers to any prompt have scores {section.min_margin:g} apart",
            where="labeler.min_margin",
            fix="lower it, raise labeler.samples or candidates.0.temperature; then start anew with --fresh",
        )
    if not store.num_pairs(identical=False):  # else an earlier attempt ended right behind this line
        store.add_pairs(choice.pairs)
    told = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(choice.left_out.items()))
    median = statistics.median(choice.margins)
    run.say(
        f"{len(choice.pairs)} pairs, scores apart by {median:.2f} in the median; left out: {told or 'nothing'}"
    )
    run.set_extra("ranking", {"median_margin": median, "num_pairs": len(choice.pairs), **choice.left_out})


def _scores(
    batch: Sequence[Answer], loaded: LoadedModel, config: CollectConfig, store: Store
) -> Iterator[tuple[int, float]]:
    """Score answers as the reward model was trained to read them; those it has no room for have no score."""
    rows = _encoded(batch, loaded, config, store)
    scorer = TrainedScorer(
        loaded.model,
        loaded.vocabulary.pad_id,
        mean=0.0,
        std=1.0,
        micro_tokens=micro_tokens_for("auto", loaded.device),
        autocast=autocast_for("auto", loaded.device, num_parameters(loaded.model)),
        device=loaded.device,
    )
    episodes = [
        Episode("", tuple(row.input_ids[: row.num_prompt]), tuple(row.input_ids[row.num_prompt :]), "", True)
        for row in rows
    ]
    yield from zip((int(row.origin) for row in rows), scorer.score(episodes), strict=True)


def _encoded(
    batch: Sequence[Answer], loaded: LoadedModel, config: CollectConfig, store: Store
) -> list[EncodedText]:
    vocabulary = loaded.vocabulary
    encoder = Encoder(
        vocabulary.tokenizer,
        stop_ids=vocabulary.stop_ids,
        template=config.template,
        max_length=vocabulary.max_positions or _NO_LIMIT,
        over_length="drop",
    )
    prompts = store.prompts()
    records = []
    for answer in batch:
        prompt = prompts[answer.prompt_id - 1].prompt
        records.append(Demonstration(prompt, _completion(prompt, answer.text), str(answer.id)))
    return encoder.demonstrations(records)


def _completion(prompt: Text, text: str) -> Text:
    return text if isinstance(prompt, str) else (Message("assistant", text),)
