"""Waiting prompts take the places of rows that are done: who sits where, and that it changes no answer."""

import itertools

import pytest
import torch
from policies import MODELS, PROMPTS, SEEDS, STOPS, build, engine_of, ids_of, sampling_of
from transformers import PreTrainedModel

from rlhf_cli.errors import Preempted
from rlhf_cli.rollout import transformers_engine
from rlhf_cli.rollout.cache import SlotCache
from rlhf_cli.rollout.engine import Completion

# peft asks transformers for an attribute by its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

SLOTTED = [name for name in MODELS if name != "sliding"]


def shapes_of(model: PreTrainedModel) -> list[tuple[int, int]]:
    """Collect the shape of every input from now on."""
    shapes: list[tuple[int, int]] = []
    model.register_forward_pre_hook(
        lambda _, __, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


def alone(model: PreTrainedModel) -> list[Completion]:
    """Answer every prompt in a call of its own."""
    return [
        engine_of(model).generate([prompt], sampling_of(), [seed])[0]
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]


@pytest.mark.parametrize("name", SLOTTED)
@pytest.mark.parametrize("num_slots", [1, 6])
def test_answers_in_few_places_are_those_of_a_call_each(name: str, num_slots: int):
    model = build(name)
    for one, other in zip(
        engine_of(model, chunk_size=num_slots).generate(PROMPTS, sampling_of(), SEEDS),
        alone(model),
        strict=True,
    ):
        assert (one.token_ids, one.finished) == (other.token_ids, other.finished)
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_newcomers_enter_while_others_are_being_answered(monkeypatch: pytest.MonkeyPatch):
    model = build()
    shapes = shapes_of(model)
    with_slots = engine_of(model, chunk_size=4).generate(PROMPTS, sampling_of(), SEEDS)
    entered, steps = shapes.copy(), sum(width == 1 for _, width in shapes)
    shapes.clear()
    monkeypatch.setattr(transformers_engine, "has_plain_cache", lambda _: False)
    in_chunks = engine_of(model, chunk_size=4).generate(PROMPTS, sampling_of(), SEEDS)
    assert ids_of(with_slots) == ids_of(in_chunks)
    assert max(rows for rows, _ in entered) == 4
    single = [width for rows, width in entered if rows == 1 and width > 1]
    assert len(single) > 5  # prompts that were read on their own, as places fell free
    assert steps < 0.8 * sum(width == 1 for _, width in shapes)


@pytest.mark.parametrize("name", SLOTTED)
def test_rows_that_reach_the_last_column_move_to_the_front(name: str, monkeypatch: pytest.MonkeyPatch):
    distances = []
    shift = SlotCache.shift
    monkeypatch.setattr(SlotCache, "shift", lambda cache, d: (distances.append(d), shift(cache, d))[1])
    monkeypatch.setattr(transformers_engine, "_SPARE_COLUMNS", 1)
    model = build(name)
    completions = engine_of(model, chunk_size=4).generate(PROMPTS, sampling_of(), SEEDS)
    assert ids_of(completions) == ids_of(alone(model))
    assert len(distances) > 1
    assert min(distances) > 0


@pytest.mark.parametrize("share", [0.0001, 0.5, 1.0])
def test_it_does_not_matter_how_many_places_must_be_free(share: float, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(transformers_engine, "_ENTERING_SHARE", share)
    model = build()
    completions = engine_of(model, chunk_size=6).generate(PROMPTS, sampling_of(), SEEDS)
    assert ids_of(completions) == ids_of(alone(model))


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_context_limit_holds_for_newcomers(name: str):
    model = build(name)
    limited = engine_of(model, chunk_size=3, max_positions=22).generate(PROMPTS, sampling_of(), SEEDS)
    rooms = [min(20, 22 - len(prompt)) for prompt in PROMPTS]
    assert ids_of(limited) == [ids[:room] for ids, room in zip(ids_of(alone(model)), rooms, strict=True)]
    assert [completion.finished for completion in limited] == [ids[-1] in STOPS for ids in ids_of(limited)]


def test_answers_of_one_token_never_block_a_place():
    model = build()
    sampling = sampling_of(max_new_tokens=1)
    completions = engine_of(model, chunk_size=2).generate(PROMPTS, sampling, SEEDS)
    assert [ids for ids in ids_of(completions)] == [ids[:1] for ids in ids_of(alone(model))]


def test_an_interruption_is_noticed_while_prompts_wait():
    polls = itertools.count()
    engine = engine_of(build(), chunk_size=2, should_stop=lambda: next(polls) == 30)
    with pytest.raises(Preempted, match="interrupted while sampling"):
        engine.generate(PROMPTS, sampling_of(), SEEDS)
    assert next(polls) == 31


def test_reserved_memory_does_not_grow_with_the_number_of_prompts():
    model = build()
    columns = []
    model.register_forward_pre_hook(
        lambda _, __, kwargs: columns.append(kwargs["past_key_values"].layers[0].num_columns),
        with_kwargs=True,
    )
    engine_of(model, chunk_size=2).generate(PROMPTS * 3, sampling_of(), range(len(PROMPTS) * 3))
    assert max(columns) <= max(map(len, PROMPTS)) + 20 + transformers_engine._SPARE_COLUMNS
    assert torch.tensor(columns).max() > 0


@pytest.mark.parametrize("name", MODELS)
def test_a_prompt_that_is_answered_several_times_is_read_once(name: str):
    model = build(name)
    prompts, seeds = [PROMPTS[3]] * 3 + [PROMPTS[5]] * 3, SEEDS[:6]
    one_by_one = [
        engine_of(model).generate([prompt], sampling_of(), [seed])[0].token_ids
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    shapes = shapes_of(model)
    together = engine_of(model).generate(prompts, sampling_of(), seeds)
    assert sum(rows for rows, width in shapes if width > 1) == 2
    assert ids_of(together) == one_by_one
    assert len(set(one_by_one)) == 6
