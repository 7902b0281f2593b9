"""The decode loop against transformers' own `generate`, a plain forward pass, and the probabilities themselves."""

import itertools
import random

import pytest
import torch
from policies import GROUPED, MODELS, PAD, PROMPTS, SEEDS, STOPS, VOCAB, build, engine_of, ids_of, sampling_of
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from rlhf_cli.errors import DataError, DivergedError, Preempted
from rlhf_cli.models import decoding
from rlhf_cli.rollout import transformers_engine
from rlhf_cli.rollout.transformers_engine import TransformersEngine

# peft asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(params=["kernel", "by hand"], autouse=True)
def attention(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all of this with either attention; models as small as these would have the kernel's alone."""
    if request.param == "by hand":
        monkeypatch.setattr(decoding, "_LEAST_ELEMENTS", 0)


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    return build(request.param)


def test_greedy_is_what_generate_gives(model):
    completions = engine_of(model).generate(PROMPTS, sampling_of(temperature=0.0), SEEDS)
    for prompt, completion in zip(PROMPTS, completions, strict=True):
        expected = model.generate(
            input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=20, do_sample=False, eos_token_id=list(STOPS), pad_token_id=PAD,
        )[0, len(prompt) :].tolist()  # fmt: skip
        assert list(completion.token_ids) == expected
        assert completion.finished == (expected[-1] in STOPS)
    assert 0 < sum(completion.finished for completion in completions) < len(PROMPTS)


@pytest.mark.parametrize(
    ("temperature", "top_p", "divisor"), [(1.0, 1.0, 1.0), (0.6, 0.7, 0.6), (0.0, 1.0, 1.0)]
)
def test_logprobs_are_those_of_a_full_forward(model, temperature, top_p, divisor):
    sampling = sampling_of(temperature=temperature, top_p=top_p)
    for prompt, completion in zip(PROMPTS, engine_of(model).generate(PROMPTS, sampling, SEEDS), strict=True):
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        with torch.no_grad():
            logprobs = (model(ids).logits[0, len(prompt) - 1 : -1] / divisor).log_softmax(-1)
        expected = logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0].tolist()
        assert completion.logprobs == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("top_p", [1.0, 0.8])
def test_a_completion_does_not_depend_on_the_others(model, top_p):
    sampling = sampling_of(top_p=top_p)
    together = engine_of(model, chunk_size=32).generate(PROMPTS, sampling, SEEDS)
    alone = [
        engine_of(model).generate([prompt], sampling, [seed])[0]
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    order = random.Random(5).sample(range(len(PROMPTS)), len(PROMPTS))
    shuffled = engine_of(model, chunk_size=5).generate(
        [PROMPTS[i] for i in order], sampling, [SEEDS[i] for i in order]
    )
    assert ids_of(together) == ids_of(alone)
    assert ids_of(shuffled) == [alone[i].token_ids for i in order]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_departing_rows_change_nothing(model, monkeypatch):
    outcomes = []
    for share in (0.0001, 0.25, 2.0):  # as soon as one is done; now and then; never
        monkeypatch.setattr(transformers_engine, "_DEPARTING_SHARE", share)
        outcomes.append(engine_of(model, chunk_size=32).generate(PROMPTS, sampling_of(), SEEDS))
    lengths = {len(completion.token_ids) for completion in outcomes[0]}
    assert len(lengths) > 5
    assert ids_of(outcomes[0]) == ids_of(outcomes[1]) == ids_of(outcomes[2])


def test_departing_rows_shrink_the_batch(monkeypatch):
    sizes = []
    model = build()
    model.register_forward_pre_hook(
        lambda _, __, kwargs: sizes.append(kwargs["input_ids"].shape[0]), with_kwargs=True
    )
    engine_of(model, chunk_size=32).generate(PROMPTS, sampling_of(), SEEDS)
    assert sizes[0] == len(PROMPTS)
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] <= len(PROMPTS) / 2


def test_another_seed_gives_another_completion():
    prompts = [PROMPTS[0]] * 6
    completions = engine_of(build()).generate(prompts, sampling_of(stop_ids=()), [1, 2, 3, 1, 2, 3])
    assert ids_of(completions[:3]) == ids_of(completions[3:])
    assert len(set(ids_of(completions))) == 3


def test_more_room_continues_the_same_completion():
    engine = engine_of(build())
    short = engine.generate(PROMPTS, sampling_of(max_new_tokens=5, stop_ids=()), SEEDS)
    long = engine.generate(PROMPTS, sampling_of(max_new_tokens=19, stop_ids=()), SEEDS)
    assert ids_of(short) == [completion.token_ids[:5] for completion in long]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7)])
def test_frequencies_are_the_probabilities(temperature, top_p):
    num_samples, prompt = 4000, [3, 8, 20]
    torch.manual_seed(1)
    model = LlamaForCausalLM(LlamaConfig(**GROUPED | {"vocab_size": 24, "initializer_range": 0.15})).eval()
    with torch.no_grad():
        probabilities = (model(torch.tensor([prompt])).logits[0, -1] / temperature).softmax(-1)
    if top_p < 1:
        ordered = probabilities.sort(descending=True).values
        kept = int((ordered.cumsum(0) < top_p).sum()) + 1
        probabilities = probabilities.where(probabilities >= ordered[kept - 1], 0)
        probabilities = probabilities / probabilities.sum()
    sampling = sampling_of(temperature=temperature, top_p=top_p, max_new_tokens=1)
    completions = engine_of(model, chunk_size=num_samples).generate(
        [prompt] * num_samples, sampling, range(num_samples)
    )
    counts = torch.bincount(torch.tensor(ids_of(completions))[:, 0], minlength=24)
    sigmas = (num_samples * probabilities * (1 - probabilities)).sqrt()
    assert ((counts - num_samples * probabilities).abs() <= 4 * sigmas).all()
    assert (probabilities > 0.02).sum() > 5


def free_run(model, prompts, max_new_tokens):
    """Greedy tokens without any stop token."""
    sampling = sampling_of(temperature=0.0, max_new_tokens=max_new_tokens, stop_ids=())
    return ids_of(engine_of(model).generate(prompts, sampling, [0] * len(prompts)))


def test_the_stop_token_closes_a_completion_even_at_its_last_place():
    model = build()
    [ids] = free_run(model, [PROMPTS[0]], 6)
    first = ids.index(ids[5])  # where that token occurs first
    sampling = sampling_of(temperature=0.0, max_new_tokens=first + 1, stop_ids=(ids[5],))
    [closed] = engine_of(model).generate([PROMPTS[0]], sampling, [0])
    assert (closed.token_ids, closed.finished) == (ids[: first + 1], True)
    assert len(closed.logprobs) == first + 1


def test_nothing_is_appended_to_a_completion_that_runs_out():
    model = build()
    [ids] = free_run(model, [PROMPTS[0]], 4)
    unseen = next(token for token in range(VOCAB) if token not in ids)
    sampling = sampling_of(temperature=0.0, max_new_tokens=4, stop_ids=(unseen,))
    [cut] = engine_of(model).generate([PROMPTS[0]], sampling, [0])
    assert (cut.token_ids, cut.finished) == (ids, False)


@pytest.mark.parametrize("name", ["llama", "gpt2"])  # gpt2 has no 41st position to look up
def test_the_context_limit_cuts_each_row_by_its_own_length(name, monkeypatch):
    monkeypatch.setattr(transformers_engine, "_DEPARTING_SHARE", 2.0)
    model, prompts = build(name), [[4] * 39, [6] * 33, [8] * 5, [3] * 30]
    sampling = sampling_of(max_new_tokens=20, stop_ids=())
    completions = engine_of(model, max_positions=40).generate(prompts, sampling, [1, 2, 3, 4])
    assert [len(ids) for ids in ids_of(completions)] == [1, 7, 20, 10]
    assert not any(completion.finished for completion in completions)


def test_a_row_cut_by_the_context_equals_the_unlimited_one(monkeypatch):
    monkeypatch.setattr(transformers_engine, "_DEPARTING_SHARE", 2.0)  # a cut row may meet a stop token later
    model = build()
    limited = engine_of(model, chunk_size=32, max_positions=22).generate(PROMPTS, sampling_of(), SEEDS)
    unlimited = engine_of(model).generate(PROMPTS, sampling_of(), SEEDS)
    rooms = [min(20, 22 - len(prompt)) for prompt in PROMPTS]
    assert ids_of(limited) == [ids[:room] for ids, room in zip(ids_of(unlimited), rooms, strict=True)]
    assert [completion.finished for completion in limited] == [ids[-1] in STOPS for ids in ids_of(limited)]
    assert 0 < sum(completion.finished for completion in limited) < len(PROMPTS)


@pytest.mark.parametrize(("prompt", "says"), [([4] * 40, "leaves no room"), ([], "empty prompt")])
def test_a_prompt_that_cannot_be_answered_is_refused(prompt, says):
    with pytest.raises(DataError, match=says):
        engine_of(build(), max_positions=40).generate([[4], prompt], sampling_of(), [0, 1])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_that_gives_nan_stops_the_run(temperature):
    model = build()
    torch.nn.init.constant_(model.lm_head.weight, torch.nan)
    with pytest.raises(DivergedError, match="not finite"):
        engine_of(model).generate(PROMPTS, sampling_of(temperature=temperature), SEEDS)


def test_no_prompts_no_completions():
    assert engine_of(build()).generate([], sampling_of(), []) == []


def test_every_prompt_needs_a_seed():
    with pytest.raises(ValueError, match="shorter"):
        engine_of(build()).generate([[4], [5]], sampling_of(), [0])


def test_an_interruption_is_noticed_between_tokens():
    model = build().train()
    polls = itertools.count()
    engine = engine_of(model, should_stop=lambda: next(polls) == 3)
    with pytest.raises(Preempted, match="interrupted while sampling"):
        engine.generate(PROMPTS, sampling_of(stop_ids=()), SEEDS)
    assert next(polls) == 4
    assert model.training


def test_each_module_returns_to_its_own_mode():
    model = build().train()
    model.lm_head.eval()
    before = {name: module.training for name, module in model.named_modules()}
    seen = []
    model.model.register_forward_pre_hook(lambda module, _: seen.append(module.training))
    engine_of(model).generate(PROMPTS[:2], sampling_of(), SEEDS[:2])
    assert seen
    assert not any(seen)
    assert {name: module.training for name, module in model.named_modules()} == before


def test_the_forward_pass_runs_under_autocast():
    model = build()
    dtypes = set()
    model.lm_head.register_forward_hook(lambda _, __, output: dtypes.add(output.dtype))
    engine = TransformersEngine(
        model, PAD, chunk_size=8, autocast=lambda: torch.autocast("cpu", dtype=torch.bfloat16)
    )
    completions = engine.generate(PROMPTS, sampling_of(), SEEDS)
    assert dtypes == {torch.bfloat16}
    assert all(logprob <= 0 for completion in completions for logprob in completion.logprobs)


def test_the_global_generator_is_left_alone():
    model = build()
    before = torch.random.get_rng_state()
    engine_of(model).generate(PROMPTS[:3], sampling_of(), SEEDS[:3])
    assert torch.equal(torch.random.get_rng_state(), before)
