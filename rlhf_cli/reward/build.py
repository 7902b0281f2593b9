"""From configured reward sources to scorers with their weights."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rlhf_cli.config.sections import (
    AnswerReward,
    EnsembleReward,
    FunctionReward,
    HttpReward,
    LengthReward,
    ModelReward,
    RegexReward,
    RewardSource,
)
from rlhf_cli.errors import DataError
from rlhf_cli.models.device import Autocast
from rlhf_cli.models.heads import ScoreScale
from rlhf_cli.models.load import LoadedModel, Vocabulary
from rlhf_cli.models.tokenizer import tokenizers_agree
from rlhf_cli.reward.answer import AnswerScorer
from rlhf_cli.reward.ensemble import EnsembleScorer
from rlhf_cli.reward.rules import FunctionScorer, LengthScorer, RegexScorer
from rlhf_cli.reward.scorer import LedScorer, Scorer
from rlhf_cli.reward.served import ScoreServer, ServedScorer
from rlhf_cli.reward.trained import TrainedScorer
from rlhf_cli.run.keys import read_key
from rlhf_cli.run.ranks import Ranks


@dataclass(frozen=True, slots=True)
class Outside:
    """What scorers need of the run: a folder for what servers answered, when to stop waiting, the other processes."""

    folder: Path
    should_stop: Callable[[], bool]
    ranks: Ranks = field(default_factory=Ranks)


def build_scorers(
    sources: Sequence[RewardSource],
    reward_models: Mapping[str, tuple[LoadedModel, ScoreScale]],
    vocabulary: Vocabulary,
    *,
    micro_tokens: int,
    autocast: Autocast,
    outside: Outside,
) -> list[tuple[Scorer, float]]:
    """Make one (scorer, weight) per source; `reward_models` are frozen, by path, with their scales.

    Raises DataError when a reward model reads other token ids than the policy writes.
    """

    def trained(path: str) -> Scorer:
        loaded, scale = reward_models[path]
        require_agreement(loaded, vocabulary)
        return TrainedScorer(
            loaded.core,
            loaded.vocabulary.pad_id,
            mean=scale.mean,
            std=scale.std,
            micro_tokens=micro_tokens,
            autocast=autocast,
            device=loaded.device,
            ranks=outside.ranks,
        )

    def build(source: RewardSource) -> Scorer:
        match source:
            case ModelReward(path=path):
                return trained(path)
            case EnsembleReward(paths=paths, std_weight=std_weight):
                return EnsembleScorer([trained(path) for path in paths], std_weight=std_weight)
        return LedScorer(_without_model(source, outside), outside.ranks)

    return [(build(source), source.weight) for source in sources]


def _without_model(source: RewardSource, outside: Outside) -> Scorer:
    match source:
        case AnswerReward(column=column, pattern=pattern):
            return AnswerScorer(column, pattern)
        case HttpReward():
            return _served(source, outside)
        case LengthReward(target=target):
            return LengthScorer(target)
        case RegexReward(pattern=pattern):
            return RegexScorer(pattern)
        case FunctionReward(function=function):
            return FunctionScorer(function)
    raise AssertionError(source)


def _served(source: HttpReward, outside: Outside) -> Scorer:
    server = ScoreServer(
        source.url,
        batch_size=source.batch_size,
        timeout_seconds=source.timeout_seconds,
        retries=source.retries,
        api_key=read_key(source.api_key_env, where="reward.api_key_env"),
    )
    return ServedScorer(server, outside.folder / "scores.db", should_stop=outside.should_stop)


def require_agreement(loaded: LoadedModel, vocabulary: Vocabulary) -> None:
    """Raise DataError unless a model shares the policy's token ids and EOS."""
    if not tokenizers_agree(loaded.vocabulary.tokenizer, vocabulary.tokenizer):
        raise DataError(
            f"the reward model {loaded.path} has another tokenizer than the policy",
            where="reward",
            fix="train the reward model from the policy's own sft run",
        )
