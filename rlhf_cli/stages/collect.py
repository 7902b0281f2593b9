"""`rlhf collect`: two answers to each prompt, a labeler's verdict on each pair, and the preferences that follow.

The other kinds, demonstrations and constitution, have files of their own. Everything lives in `collect.db` of the
run: answers are stored batch by batch, votes one by one, so the same command goes on after any interruption. The
result is `preferences.jsonl`, which train-rm and dpo read.
"""

import json
from collections.abc import Mapping

from rlhf_cli.config.collect_config import CollectConfig
from rlhf_cli.config.collect_sections import RewardLabeler
from rlhf_cli.config.judge_sections import JudgeLabeler
from rlhf_cli.preference.agreement import agreement_of, in_sentences
from rlhf_cli.preference.consensus import outcomes
from rlhf_cli.preference.export import ExportPolicy, export_preferences
from rlhf_cli.preference.judge.templates import load_template
from rlhf_cli.preference.store import Store
from rlhf_cli.preference.summary import summarise
from rlhf_cli.run.directory import write_atomic
from rlhf_cli.run.session import Run, StageResult
from rlhf_cli.stages.asking import open_labeler
from rlhf_cli.stages.constitution import collect_revisions
from rlhf_cli.stages.demonstrations import collect_demonstrations, plan_demonstrations


def run(config: CollectConfig, run: Run) -> StageResult:
    """Collect what `kind` says."""
    with run.stop.deferred():  # answers and votes under way are waited for, and paid for once
        match config.kind:
            case "preferences":
                return _collect_preferences(config, run)
            case "demonstrations":
                return collect_demonstrations(config, run)
            case "constitution":
                return collect_revisions(config, run)


def _collect_preferences(config: CollectConfig, run: Run) -> StageResult:
    """Sample the answers, have every pair judged, and export the preferences."""
    ask = open_labeler(config, run)
    with Store(run.dir.root / "collect.db") as store:
        if store.noted("pairs") != "complete":
            from rlhf_cli.stages.answering import fill_with_pairs  # torch, and seconds to import it

            fill_with_pairs(config, store, run)
        ask(store)
        decided = outcomes(store.votes())
        policy = ExportPolicy(
            **config.export.model_dump(exclude={"formats"}), seed=config.seed, round=config.round
        )
        export = export_preferences(store, decided, run.dir.root, policy, config.export.formats)
        metrics = summarise(store, decided) | _report_agreement(store, config.seed, run)
    run.say(f"{export.num_rows} preferences from {in_words(metrics)}")
    for line in export.notes:
        run.say(line)
    return StageResult(export.path, int(metrics["num_votes"]), metrics)


def _report_agreement(store: Store, seed: int, run: Run) -> dict[str, float]:
    """Say how far people agree, if people judged, and keep all of it in `export/agreement.json`."""
    people = {name for name, (kind, _) in store.labelers().items() if kind == "human"}
    votes = [vote for vote in store.votes() if vote.labeler in people]
    if not votes:
        return {}
    prompts = store.prompts_of_pairs()
    agreement = agreement_of(votes, seed=seed, prompt_of=prompts.__getitem__)
    text = json.dumps(agreement.as_json(), indent=2, ensure_ascii=False)
    write_atomic(run.dir.root / "export" / "agreement.json", f"{text}\n")
    for sentence in in_sentences(agreement):
        run.say(sentence)
    return agreement.metrics()


def plan(config: CollectConfig) -> str:
    """Say what a run would do: prompts, answers, who judges."""
    if config.kind == "demonstrations" and not config.candidates:
        return plan_demonstrations(config)
    from rlhf_cli.stages.answering import answer_slots, choose_prompts

    prompts = choose_prompts(config)
    num_prompts, num_answers = len(prompts.train), len(answer_slots(config)) * len(prompts.train)
    answers = [f"{c.path} at temperature {c.temperature:g}" for c in config.candidates]
    most = config.generation.max_new_tokens
    then = _then(config, num_prompts)
    return "\n".join(
        [prompts.text, f"answers: {num_answers} of at most {most} tokens, by {', '.join(answers)}", then]
    )


def _then(config: CollectConfig, num_prompts: int) -> str:
    """Say what becomes of the answers, and what is asked of chat models for it."""
    if config.kind == "demonstrations":
        return f"drafts: {num_prompts}, rewritten by people ({config.labeler.kind})"
    if config.constitution:
        rounds = config.constitution.rounds
        return f"critiques: {rounds * num_prompts}, and as many revisions, in {rounds} rounds"
    match config.labeler:
        case RewardLabeler():
            return "pairs: as the scores make them, judged by reward"
        case JudgeLabeler(orders=orders, template=template):
            num_requests = num_prompts * (2 if orders == "both" else 1)
            most = load_template(template).max_tokens
            return (
                f"pairs: {num_prompts}, judged by judge: {num_requests} requests, each with at most {most} tokens "
                "to answer; verdicts that cannot be read are asked for again"
            )
        case labeler:
            return f"pairs: {num_prompts}, judged by {labeler.kind}"


def in_words(metrics: Mapping[str, float]) -> str:
    """Say what became of the pairs, and warn of what may spoil them."""
    counts = {
        "decided": "decided",
        "ties": "tied",
        "both_bad": "both bad",
        "skipped": "skipped",
        "errors": "failed to be judged",
        "identical_pairs": "identical",
    }
    parts = [f"{metrics[key]} {words}" for key, words in counts.items() if metrics[key]]
    if metrics["surplus_votes"]:
        parts.append(f"{metrics['surplus_votes']} votes more than wanted, kept and not counted")
    rates = {
        "chosen_longer_rate": "the longer answer won",
        "first_shown_win_rate": "the answer shown first won",
    }
    parts += [f"{words} {metrics[key]:.0%}" for key, words in rates.items() if key in metrics]
    if metrics["unfinished_rate"]:
        parts.append(f"{metrics['unfinished_rate']:.0%} of the answers are cut at generation.max_new_tokens")
    return f"{metrics['num_pairs']} pairs: {', '.join(parts)}"
