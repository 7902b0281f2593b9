"""Chat models and judges as they are configured: keys from the environment, templates from files, calls stored."""

from collections.abc import Callable

from rlhf_cli.config import judge_sections, sections
from rlhf_cli.errors import ConfigError
from rlhf_cli.preference.constitution.principles import load_principles
from rlhf_cli.preference.judge.budget import Budget, Limits, Prices
from rlhf_cli.preference.judge.calls import CachedChat, Calls
from rlhf_cli.preference.judge.chat import Chat
from rlhf_cli.preference.judge.judging import Judge, JudgeSettings
from rlhf_cli.preference.judge.server import Server, ServerChat
from rlhf_cli.preference.judge.templates import load_template
from rlhf_cli.preference.judge.votes import judge_votes
from rlhf_cli.preference.store import Store
from rlhf_cli.run.keys import read_key
from rlhf_cli.run.session import Run

_KEY = "chat.api_key_env"


def check_judge(section: judge_sections.Judge) -> None:
    """Raise now what would otherwise fail after hours: no template, no model, no key."""
    load_template(section.template)
    principles_of(section)
    check_chat(section.chat)


def principles_of(section: judge_sections.Judge) -> tuple[str, ...]:
    """Return the sentences a judge goes by: the configured ones, then those of the file. Raises ConfigError."""
    if section.principles_file is None:
        return tuple(section.principles)
    named = [it.compare for it in load_principles(section.principles_file) if it.compare]
    principles = (*section.principles, *named)
    if not named or (section.num_principles or 0) > len(principles):
        raise ConfigError(
            f"{len(named)} of its principles have a `compare`",
            where=section.principles_file,
            fix="word more of them for a judge, or lower num_principles",
        )
    return principles


def check_chat(section: judge_sections.Chat) -> None:
    """Raise now what would otherwise fail after hours: no model, no key."""
    if isinstance(section, judge_sections.ServerChat):
        read_key(section.api_key_env, where=_KEY)
    else:
        from rlhf_cli.models.load import load_vocabulary

        load_vocabulary(sections.Model(path=section.path, revision=section.revision))


def open_chat(section: judge_sections.Chat, calls: Calls, *, should_stop: Callable[[], bool]) -> Chat:
    """Open a chat model whose replies are kept in `calls`, and whose budget counts those there already."""
    if isinstance(section, judge_sections.ServerChat):
        prices = Prices(section.prices.prompt, section.prices.completion)
        limits = Limits(section.budget.calls, section.budget.tokens, section.budget.cost)
        budget = Budget(limits, prices, calls.spent())
        return CachedChat(ServerChat(_server(section), budget, should_stop=should_stop), calls)
    from rlhf_cli.stages.local_chat import LocalChat  # torch; servers do without

    return CachedChat(LocalChat.open(section, should_stop=should_stop), calls)


def make_judge(section: judge_sections.Judge, chat: Chat, seed: int) -> Judge:
    """Give a judge that asks `chat` as configured. Raises as `check_judge` does."""
    settings = JudgeSettings(
        orders=section.orders,
        tie_margin=section.tie_margin,
        min_label_mass=section.min_label_mass,
        clamp=section.clamp,
        attempts=section.attempts,
        temperature=section.temperature,
        rubric=section.rubric,
        principles=principles_of(section),
        num_principles=section.num_principles,
        seed=seed,
    )
    return Judge(chat, load_template(section.template), settings)


def judge_detail(section: judge_sections.Judge, chat: Chat) -> dict[str, object]:
    """Return what else than its name decides a judge's votes: the model, and all that it is told and how."""
    kept = {
        "rubric",
        "num_principles",
        "orders",
        "tie_margin",
        "min_label_mass",
        "clamp",
        "attempts",
    }
    template = load_template(section.template)
    return {
        "chat": chat.identity,
        "template": section.template,
        "template_sha256": template.digest,
        "principles": list(principles_of(section)),
        **section.model_dump(mode="json", include=kept | {"temperature"}),
    }


def vote_on_all(store: Store, section: judge_sections.JudgeLabeler, seed: int, run: Run) -> tuple[int, int]:
    """Have every pair of a store judged that is not yet; return how many are, of how many.

    Raises Preempted when the budget is spent, UnavailableError when the server is beyond hope; votes stay.
    """
    with Calls(store.path) as calls:
        chat = open_chat(section.chat, calls, should_stop=lambda: run.stop.requested)
        judge, name = make_judge(section, chat, seed), section.name or chat.name
        store.add_labeler(name, "judge", judge_detail(section, chat))
        total = store.num_votes(name) + len(store.undecided(name))
        num_judged = total - len(store.undecided(name, errors=section.retry_errors))
        try:
            with run.progress(total, start=num_judged) as bar:
                for num_judged in judge_votes(store, judge, name, errors=section.retry_errors):
                    bar.update(num_judged)
        finally:
            run.say(f"judge {name}: {num_judged} of {total} pairs judged, with {calls.spent()} so far")
    return num_judged, total


def _server(section: judge_sections.ServerChat) -> Server:
    return Server(
        url=section.url,
        model=section.model,
        api_key=read_key(section.api_key_env, where=_KEY),
        concurrency=section.concurrency,
        timeout_seconds=section.timeout_seconds,
        retries=section.retries,
        patience=section.patience,
        longest_wait_seconds=section.longest_wait_seconds,
    )
