"""`kind: demonstrations` of `rlhf collect`: people write the answer to each prompt, from nothing or from a draft.

The result is `demonstrations.jsonl`, which `rlhf sft` reads as it is.
"""

import dataclasses
from collections import deque
from collections.abc import Callable

from rlhf_cli.config import collect_sections as sections
from rlhf_cli.config.collect_config import CollectConfig
from rlhf_cli.data.fields import as_dialog
from rlhf_cli.data.readers import read_prompts
from rlhf_cli.errors import DataError
from rlhf_cli.preference.demonstrations import demonstration_rows, summarise_writings
from rlhf_cli.preference.export import json_lines
from rlhf_cli.preference.store import Store
from rlhf_cli.preference.writing import WritingDesk
from rlhf_cli.records import Prompt
from rlhf_cli.run.directory import write_atomic
from rlhf_cli.run.session import Run, StageResult
from rlhf_cli.stages.asking import login_name, raise_if_unfinished, web_settings


def collect_demonstrations(config: CollectConfig, run: Run) -> StageResult:
    """Have every prompt answered or skipped, and export the answers. Raises DataError when all were skipped."""
    ask = _open_writers(config, run)
    with Store(run.dir.root / "collect.db") as store:
        if store.noted("answers") != "complete":
            _fill(config, store, run)
        ask(store)
        rows, metrics = demonstration_rows(store), summarise_writings(store)
    if not rows:
        raise DataError("every prompt was skipped", where=str(run.dir.root / "collect.db"), fix="use --fresh")
    path = run.dir.root / "demonstrations.jsonl"
    write_atomic(path, json_lines(rows))
    run.say(
        f"{len(rows)} demonstrations by {_people(metrics['num_people'])}, {metrics['num_skipped']:.0f} skipped"
    )
    return StageResult(path, len(rows), metrics)


def _people(number: float) -> str:
    return "one person" if number == 1 else f"{number:.0f} people"


def plan_demonstrations(config: CollectConfig) -> str:
    """Say what a run without drafts would do."""
    return f"prompts: {len(_prompts(config))}, answered by people ({config.labeler.kind})"


def _fill(config: CollectConfig, store: Store, run: Run) -> None:
    if config.candidates:
        from rlhf_cli.stages.answering import fill_with_answers  # torch, and seconds to import it

        fill_with_answers(config, store, run)
    else:
        store.add_prompts(_prompts(config))
        store.note("answers", "complete")


def _prompts(config: CollectConfig) -> list[Prompt]:
    reading = read_prompts(config.prompts, on_bad_row=config.on_bad_row, seed=config.seed, deduplicate=True)
    records = reading.records[: config.limit]
    if config.template == "chat":
        return [dataclasses.replace(record, prompt=as_dialog(record.prompt, "user")) for record in records]
    return records


def _open_writers(config: CollectConfig, run: Run) -> Callable[[Store], None]:
    """Open the terminal or the page. Raises here what would otherwise fail after sampling drafts."""
    match config.labeler:
        case sections.TerminalLabeler() as section:
            return _open_terminal(section, run)
        case sections.WebLabeler() as section:
            return _open_page(section, run)
    raise ValueError(config.labeler.kind)  # the configuration refuses it


def _open_terminal(section: sections.TerminalLabeler, run: Run) -> Callable[[Store], None]:
    from rlhf_cli.preference.terminal_writing import ask_writer, open_terminal_writer

    drafts = run.dir.root / "drafts"
    writer = open_terminal_writer(
        section.annotator or login_name(), drafts, stopped=lambda: run.stop.requested
    )

    def ask(store: Store) -> None:
        with WritingDesk(store) as desk:
            deque(ask_writer(desk, writer), maxlen=0)
            progress = desk.progress(writer.name)
        raise_if_unfinished(progress.done, progress.total, what="answer")

    return ask


def _open_page(section: sections.WebLabeler, run: Run) -> Callable[[Store], None]:
    from rlhf_cli.preference.web.serve import serve
    from rlhf_cli.preference.web.write_work import WriteWork

    settings = web_settings(section)

    def ask(store: Store) -> None:
        with WritingDesk(store) as desk:
            access = run.dir.root / "access.db"
            serve(WriteWork(desk), settings, access, should_stop=lambda: run.stop.requested, say=run.say)
            progress = desk.progress(settings.owner)
        raise_if_unfinished(progress.done, progress.total, what="answer")

    return ask
