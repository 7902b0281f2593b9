"""What PPO needs before it begins: the models in their roles, the engine that samples, the scorers, the layout."""

from collections.abc import Mapping, Sequence

from torch import nn

from rlhf_cli.config.sections import Rollout, reward_model_paths
from rlhf_cli.config.stages import PpoConfig
from rlhf_cli.data.encode import EncodedPrompt
from rlhf_cli.data.prepare import Prepared
from rlhf_cli.models import device
from rlhf_cli.models.actor_critic import ActorCritic, open_actors
from rlhf_cli.models.heads import Critic, RewardModel, ScoreScale, load_reward_model
from rlhf_cli.models.load import LoadedModel, Vocabulary, open_policy
from rlhf_cli.models.parallel import share_out
from rlhf_cli.reward.build import Outside, build_scorers
from rlhf_cli.reward.scorer import Scorer
from rlhf_cli.rollout.engine import Engine
from rlhf_cli.rollout.measured import Cutter
from rlhf_cli.rollout.transformers_engine import TransformersEngine
from rlhf_cli.rollout.vllm_engine import VllmEngine
from rlhf_cli.rollout.vllm_server import VllmServer
from rlhf_cli.run.session import Run
from rlhf_cli.stages.layout import choose_layout_up_to

_NUM_PROOFS = 4


def open_models(
    config: PpoConfig, vocabulary: Vocabulary, run: Run
) -> tuple[ActorCritic, dict[str, RewardModel]]:
    """Load policy, reward models, reference and critic, and record what they come from."""
    policy = open_policy(config.model, vocabulary, config.seed)
    run.add_parent("model", policy.path, policy.digest)
    rewards = {path: open_reward_model(path, policy, run) for path in reward_model_paths(config.reward)}
    actors = open_actors(
        config.model,
        policy,
        next(iter(rewards.values()), None),
        config.critic if config.ppo.advantage == "gae" else None,
        reference=config.reference,
        seed=config.seed,
        precision=config.train.precision,
        temperature=config.rollout.temperature,
    )
    for loaded in actors.models:
        if loaded is not actors.reference:
            device.set_up_training(loaded.core, config.train)
    if actors.reference is not None:
        run.add_parent("reference", actors.reference.path, actors.reference.digest)
    return actors, rewards


def share_out_all(
    config: PpoConfig, actors: ActorCritic, rewards: Mapping[str, RewardModel], run: Run
) -> None:
    """Share the weights of every model out, where that is asked for; of a classifier all but its head."""
    policies = [each for each in (actors.policy, actors.reference) if each is not None]
    classifiers = [reward.loaded for reward in rewards.values()]
    if isinstance(actors.critic, Critic):
        classifiers.append(actors.critic.loaded)
    called: list[tuple[LoadedModel, nn.Module]] = [(each, each.model) for each in policies]
    called += [(each, each.core.base_model) for each in classifiers]
    share_out(called, config.distributed, run.ranks)


def open_reward_model(path: str, policy: LoadedModel, run: Run) -> RewardModel:
    """Load a reward model, and say what is particular about it."""
    reward = load_reward_model(path, policy)
    run.add_parent("reward", path, reward.loaded.digest)
    if reward.scale is None:
        run.say(f"{path} stores no score scale (mean, std); its raw scores are the reward")
    if policy.model is not policy.core:
        place = "an adapter on the policy's base" if reward.on_policy_base else "weights of its own"
        run.say(f"reward model {path}: {place}")
    return reward


def choose_cutter(
    config: PpoConfig,
    run: Run,
    actors: ActorCritic,
    rewards: Mapping[str, RewardModel],
    data: Prepared[EncodedPrompt],
) -> Cutter:
    """Decide how sampled answers are laid out for the models that read them."""
    longest = (
        max(len(prompt.input_ids) for prompt in [*data.train, *data.eval]) + config.rollout.max_new_tokens
    )
    models = [*actors.models, *(reward.loaded for reward in rewards.values())]
    layout = choose_layout_up_to(run, models, longest)
    micro_tokens = device.micro_tokens_for(config.train.micro_tokens, actors.policy.device)
    return Cutter(layout, micro_tokens, actors.policy.device, run.ranks)


def open_engine(config: PpoConfig, actors: ActorCritic, prompts: Sequence[EncodedPrompt], run: Run) -> Engine:
    """Make the engine that samples from the policy."""
    if config.rollout.engine == "vllm":
        return open_vllm(config.rollout, actors, prompts, run)
    return TransformersEngine(
        actors.policy.model,
        actors.policy.vocabulary.pad_id,
        chunk_size=config.rollout.chunk_size,
        autocast=actors.autocast,
        max_positions=actors.policy.vocabulary.max_positions,
        should_stop=lambda: run.stop.requested,
    )


def open_vllm(
    rollout: Rollout, actors: ActorCritic, prompts: Sequence[EncodedPrompt], run: Run
) -> VllmEngine:
    """Reach the server, and keep in the run what is handed over to it."""
    assert rollout.url is not None
    server = VllmServer(
        rollout.url, timeout_seconds=rollout.timeout_seconds, should_stop=lambda: run.stop.requested
    )
    server.check()
    return VllmEngine(
        server,
        actors.policy,
        folder=run.dir.root / "cache" / "handover",
        proof_prompts=[prompt.input_ids for prompt in prompts[:_NUM_PROOFS]],
        tolerance=rollout.tolerance,
        autocast=actors.autocast,
        ranks=run.ranks,
    )


def open_scorers(
    config: PpoConfig, actors: ActorCritic, rewards: Mapping[str, RewardModel], run: Run
) -> list[tuple[Scorer, float]]:
    """Make what scores the answers; scores of a model without a stored scale are used as they are."""
    return build_scorers(
        config.reward,
        {path: (reward.loaded, reward.scale or ScoreScale()) for path, reward in rewards.items()},
        actors.policy.vocabulary,
        micro_tokens=device.micro_tokens_for(config.train.micro_tokens, actors.policy.device),
        autocast=actors.autocast,
        outside=Outside(run.dir.root / "cache", lambda: run.stop.requested, run.ranks),
    )
