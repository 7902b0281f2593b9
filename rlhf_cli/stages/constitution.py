"""`kind: constitution` of `rlhf collect`: first answers, rounds of critique and revision, and the rows that follow."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal

from rlhf_cli.config.collect_config import CollectConfig
from rlhf_cli.config.constitution_sections import Constitution
from rlhf_cli.errors import DataError, Preempted, RunConflictError
from rlhf_cli.preference.constitution.principles import Principle, load_asking, load_principles
from rlhf_cli.preference.constitution.revising import Reviser
from rlhf_cli.preference.constitution.steps import (
    all_steps,
    drafts_before,
    keep_steps,
    rows_of,
    summarise_steps,
)
from rlhf_cli.preference.export import json_lines
from rlhf_cli.preference.judge.calls import Calls
from rlhf_cli.preference.judge.chat import Chat
from rlhf_cli.preference.store import Store
from rlhf_cli.run.directory import write_atomic
from rlhf_cli.run.session import Run, StageResult
from rlhf_cli.stages.judges import check_chat, open_chat

_MANY_MORE_REFUSALS = 0.1
_OUTCOMES: Mapping[Literal["revised", "unchanged", "empty", "cut", "leaked", "failed"], str] = {
    "revised": "revised",
    "unchanged": "unchanged",
    "empty": "empty revisions",
    "cut": "revisions cut at constitution.max_new_tokens",
    "leaked": "revisions that repeat the critique",
    "failed": "failed",
}


def collect_revisions(config: CollectConfig, run: Run) -> StageResult:
    """Sample an answer to each prompt, have it criticised and revised, and export both kinds of rows."""
    section = config.constitution
    assert section is not None  # the configuration demands it with this kind
    principles = load_principles(section.principles)
    load_asking(section.template)
    check_chat(section.chat)
    with Store(run.dir.root / "collect.db") as store:
        if store.noted("answers") != "complete":
            from rlhf_cli.stages.answering import fill_with_answers  # torch, and seconds to import it

            fill_with_answers(config, store, run)
        _revise(section, principles, store, config.seed, run)
        return _export(section.rounds, store, run)


def _revise(
    section: Constitution, principles: Sequence[Principle], store: Store, seed: int, run: Run
) -> None:
    """Do what is missing of all rounds. Raises Preempted when the chat ends before; steps and replies stay."""
    with Calls(store.path) as calls:
        chat = open_chat(section.chat, calls, should_stop=lambda: run.stop.requested)
        _note_detail(_detail(section, principles, chat), store, run)
        asking = load_asking(section.template)
        reviser = Reviser(chat, asking, principles, seed, section.temperature, section.max_new_tokens)
        num_prompts = len(store.prompts())
        done, total = len(all_steps(store)), section.rounds * num_prompts
        with run.progress(total, start=done) as bar:
            for number in range(1, section.rounds + 1):
                steps = reviser.revise(drafts_before(store, number), number)
                for done in keep_steps(store, steps, chat.name):
                    bar.update(done)
                if done < number * num_prompts:
                    fix = "run the same command again: it goes on there"
                    raise Preempted(f"{done} of {total} steps saved", fix=fix)
        run.say(f"{chat.name}: {calls.spent()}")


def _detail(section: Constitution, principles: Sequence[Principle], chat: Chat) -> dict[str, object]:
    """Return what decides the steps besides the seed."""
    worded = json.dumps([principle.model_dump() for principle in principles], sort_keys=True)
    return {
        "chat": chat.identity,
        "principles": section.principles,
        "principles_sha256": hashlib.sha256(worded.encode()).hexdigest(),
        "template": section.template,
        "template_sha256": load_asking(section.template).digest,
        "temperature": section.temperature,
        "max_new_tokens": section.max_new_tokens,
    }


def _note_detail(detail: Mapping[str, object], store: Store, run: Run) -> None:
    """Keep what decides the steps. Raises RunConflictError when earlier steps were decided by something else."""
    told, before = json.dumps(detail, sort_keys=True), store.noted("constitution")
    if before not in (None, told):
        raise RunConflictError(
            "the critic, its principles or its template changed after the first steps",
            where="constitution",
            fix="restore them, or start anew with --fresh or another run_dir",
        )
    store.note("constitution", told)
    run.set_extra("constitution", detail)


def _export(rounds: int, store: Store, run: Run) -> StageResult:
    """Write demonstrations, preferences and every step. Raises DataError when nothing was revised."""
    steps, metrics = all_steps(store), summarise_steps(store, rounds)
    demonstrations, preferences = rows_of(store, rounds)
    told = [f"{metrics[f'num_{name}']:.0f} {words}" for name, words in _OUTCOMES.items()]
    run.say(f"{len(steps)} steps: {', '.join(told)}")
    root = run.dir.root
    (root / "export").mkdir(exist_ok=True)
    write_atomic(root / "export" / "steps.jsonl", json_lines(steps))
    if not demonstrations:
        raise DataError(
            "no answer was revised",
            where=str(root / "export" / "steps.jsonl"),
            fix="read there what the model wrote; take a larger one, or raise constitution.max_new_tokens",
        )
    write_atomic(root / "preferences.jsonl", json_lines(preferences))
    write_atomic(root / "demonstrations.jsonl", json_lines(demonstrations))
    run.say(f"{len(demonstrations)} of {metrics['num_prompts']:.0f} answers revised")
    if metrics["final_refusal_rate"] > metrics["first_refusal_rate"] + _MANY_MORE_REFUSALS:
        run.say(
            f"warning: {metrics['final_refusal_rate']:.0%} of the final answers begin by declining, of the first "
            f"{metrics['first_refusal_rate']:.0%}; a model trained on these alone learns to decline"
        )
    return StageResult(root / "demonstrations.jsonl", len(steps), metrics)
