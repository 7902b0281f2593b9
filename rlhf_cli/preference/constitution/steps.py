"""The steps of a constitutional collection in its store, and the rows that follow from them."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from typing import get_args

from rlhf_cli.preference.constitution.revising import Draft, Outcome, Step, is_refusal
from rlhf_cli.preference.store import Store, text_to_json
from rlhf_cli.records import Message, Text

Row = dict[str, object]

_COLUMNS = ", ".join(Step.__slots__)


def first_answers(store: Store) -> list[Draft]:
    """Return every prompt with the answer that was sampled for it, in the order of their ids."""
    query = "SELECT prompt_id, text FROM responses WHERE candidate = 0 AND sample = 0 ORDER BY prompt_id"
    prompts = store.prompts()
    return [Draft(r["prompt_id"], prompts[r["prompt_id"] - 1].prompt, r["text"]) for r in store.rows(query)]


def drafts_before(store: Store, number: int) -> list[Draft]:
    """Return the answers round `number` has yet to criticise, as the rounds before left them."""
    done = {step.prompt_id for step in steps_of(store, number)}
    before = {step.prompt_id: step.answer for step in steps_of(store, number - 1)}
    return [
        Draft(draft.prompt_id, draft.prompt, before.get(draft.prompt_id, draft.answer))
        for draft in first_answers(store)
        if draft.prompt_id not in done
    ]


def steps_of(store: Store, number: int) -> list[Step]:
    """Return the steps of one round, in the order of the prompts."""
    query = f"SELECT {_COLUMNS} FROM cai_steps WHERE number = ? ORDER BY prompt_id"
    return [Step(**row) for row in store.rows(query, (number,))]


def all_steps(store: Store) -> list[Row]:
    """Return every step as a row, with the model that took it, by prompt and round."""
    rows = store.rows(f"SELECT {_COLUMNS}, model FROM cai_steps ORDER BY prompt_id, number")
    return [dict(row) for row in rows]


def keep_steps(store: Store, steps: Iterable[Step], model: str) -> Iterator[int]:
    """Store each step as it comes, and yield how many there are by now; what was yielded is on disk."""
    insert = f"INSERT INTO cai_steps ({_COLUMNS}, model) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    count = int(store.rows("SELECT COUNT(*) FROM cai_steps")[0][0])
    for step in steps:
        with store.transaction() as db:
            db.execute(insert, (*astuple(step), model))
        count += 1
        yield count


def rows_of(store: Store, rounds: int) -> tuple[list[Row], list[Row]]:
    """Return demonstrations (prompt, final answer) and preferences (final over first answer), with provenance.

    An answer that no round could improve is a demonstration of nothing: it gives neither row. Over an empty first
    answer anything is better: it gives no preference.
    """
    by_round = [{step.prompt_id: step for step in steps_of(store, n)} for n in range(1, rounds + 1)]
    demonstrations, preferences = [], []
    for draft in first_answers(store):
        steps = [steps[draft.prompt_id] for steps in by_round]
        final = steps[-1].answer
        if not any(step.outcome == "revised" for step in steps) or final.split() == draft.answer.split():
            continue
        source = {
            "prompt_id": draft.prompt_id,
            "principles": [s.principle for s in steps if s.outcome == "revised"],
        }
        prompt = text_to_json(draft.prompt)
        chosen, rejected = (_completion(draft.prompt, text) for text in (final, draft.answer))
        demonstrations.append({"prompt": prompt, "completion": chosen, **source})
        if draft.answer.strip():
            preferences.append({"prompt": prompt, "chosen": chosen, "rejected": rejected, **source})
    return demonstrations, preferences


def summarise_steps(store: Store, rounds: int) -> dict[str, float]:
    """Count the outcomes over all rounds; compare how often and how long first and final answers are what they are.

    A refusal rate is the share of answers that begin by declining; lengths are mean words.
    """
    steps = [step for n in range(1, rounds + 1) for step in steps_of(store, n)]
    counts = Counter(step.outcome for step in steps)
    firsts = [draft.answer for draft in first_answers(store)]
    finals = [step.answer for step in steps_of(store, rounds)]
    metrics = {f"num_{name}": float(counts[name]) for name in get_args(Outcome)}
    metrics["num_prompts"] = float(len(firsts))
    for name, answers in (("first", firsts), ("final", finals)):
        metrics[f"{name}_refusal_rate"] = sum(map(is_refusal, answers)) / len(answers)
        metrics[f"{name}_words"] = sum(len(answer.split()) for answer in answers) / len(answers)
    return metrics


def _completion(prompt: Text, text: str) -> object:
    return text_to_json(text if isinstance(prompt, str) else (Message("assistant", text),))
