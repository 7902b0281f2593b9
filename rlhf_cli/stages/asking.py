"""Who judges the pairs of `rlhf collect`: each kind of labeler, opened early and asked late."""

import getpass
import os
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from rlhf_cli.config import collect_sections as sections
from rlhf_cli.config import judge_sections
from rlhf_cli.config.collect_config import CollectConfig
from rlhf_cli.errors import Preempted
from rlhf_cli.preference.desk import Desk
from rlhf_cli.preference.ranking import votes_by_score
from rlhf_cli.preference.rules import Rule, RuleLabeler
from rlhf_cli.preference.store import Store
from rlhf_cli.preference.voting import ask_machine, ask_person
from rlhf_cli.run.plugins import load_function
from rlhf_cli.run.session import Run

if TYPE_CHECKING:
    from rlhf_cli.preference.web.settings import WebSettings

Ask = Callable[[Store], None]
"""Asks about every pair of a store; raises Preempted when the labeler or a signal ends it before."""


def open_labeler(config: CollectConfig, run: Run) -> Ask:
    """Open the configured labeler. Raises here what would otherwise fail after hours of sampling."""
    match config.labeler:
        case sections.TerminalLabeler() as section:
            return _open_terminal(section, config, run)
        case sections.WebLabeler() as section:
            return _open_page(section, config, run)
        case sections.RuleLabeler() as section:
            return _open_rule(section, config, run)
        case judge_sections.JudgeLabeler() as section:
            return _open_judge(section, config, run)
        case sections.RewardLabeler() as section:
            return _open_reward(section, run)


def _open_terminal(section: sections.TerminalLabeler, config: CollectConfig, run: Run) -> Ask:
    from rlhf_cli.preference.terminal import open_terminal  # there are systems without terminals of this kind

    person = open_terminal(
        section.annotator or login_name(), tags=section.tags, stopped=lambda: run.stop.requested
    )

    def ask(store: Store) -> None:
        with open_desk(config, store) as desk:
            # Who draws the questions shows the progress, and stops when asked to.
            deque(ask_person(desk, person), maxlen=0)
            progress = desk.progress(person.name)
            is_mine = desk.next(person.name) is not None
            desk.release(person.name)
        raise_if_unfinished(progress.done, progress.total, is_mine=is_mine)

    return ask


def _open_page(section: sections.WebLabeler, config: CollectConfig, run: Run) -> Ask:
    from rlhf_cli.preference.web.serve import serve
    from rlhf_cli.preference.web.work import VoteWork

    settings = web_settings(section)

    def ask(store: Store) -> None:
        with open_desk(config, store) as desk:
            work = VoteWork(desk, tags=section.tags, votes=desk.votes)
            access = run.dir.root / "access.db"
            serve(work, settings, access, should_stop=lambda: run.stop.requested, say=run.say)
            progress = desk.progress(settings.owner)
        raise_if_unfinished(progress.done, progress.total)

    return ask


def web_settings(section: sections.WebLabeler) -> "WebSettings":
    """Give what the page is told by the configuration."""
    from rlhf_cli.preference.web.settings import WebSettings

    return WebSettings(
        owner=section.annotator or login_name(),
        host=section.host,
        port=section.port,
        annotators=tuple(section.annotators),
        guidelines=section.guidelines,
        public_url=section.public_url,
    )


def _open_rule(section: sections.RuleLabeler, config: CollectConfig, run: Run) -> Ask:
    # That it returns a number is checked at every vote.
    function = cast(Rule, load_function(section.function))
    rule = RuleLabeler(function, name=section.function, noise=section.noise, seed=config.seed)

    def ask(store: Store) -> None:
        store.add_labeler(rule.name, "rule", rule.detail)
        num_votes = store.num_votes(rule.name)
        total = num_votes + len(store.undecided(rule.name))
        with run.progress(total, start=num_votes) as bar:
            for num_votes in ask_machine(store, rule, config.seed):
                bar.update(num_votes)
                if run.stop.requested:
                    break
        raise_if_unfinished(num_votes, total)

    return ask


def _open_judge(section: judge_sections.JudgeLabeler, config: CollectConfig, run: Run) -> Ask:
    from rlhf_cli.stages.judges import check_judge, vote_on_all

    check_judge(section)
    return lambda store: raise_if_unfinished(*vote_on_all(store, section, config.seed, run))


def _open_reward(section: sections.RewardLabeler, run: Run) -> Ask:
    from rlhf_cli.config.sections import Model
    from rlhf_cli.models.load import load_vocabulary

    load_vocabulary(Model(path=section.path))

    def ask(store: Store) -> None:
        num_votes = store.num_votes(section.path)
        total = num_votes + len(store.undecided(section.path))
        with run.progress(total, start=num_votes) as bar:
            for num_votes in votes_by_score(store, section.path):
                bar.update(num_votes)
                if run.stop.requested:
                    break
        raise_if_unfinished(num_votes, total)

    return ask


def open_desk(config: CollectConfig, store: Store) -> Desk:
    """Open the desk for people, with the configured overlap."""
    overlap = config.overlap
    return Desk(store, votes_per_pair=overlap.votes, overlap_fraction=overlap.fraction, seed=config.seed)


def raise_if_unfinished(saved: int, total: int, *, is_mine: bool = True, what: str = "vote") -> None:
    """Raise Preempted while votes, or what else, are missing; unless `is_mine`, other people are to give them."""
    if saved < total:
        fix = f"run the same command again: it continues at {saved + 1}"
        if not is_mine:
            fix = (
                "have somebody else run the same command; with labeler.annotator null, LOGNAME says who it is"
            )
        words = what if saved == 1 else f"{what}s"
        raise Preempted(
            f"{saved} {words} saved, {total - saved} to go{'' if is_mine else ', by others'}", fix=fix
        )


def login_name() -> str:
    """Return the name of whoever runs this."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # containers run under numbers that have no name
        return f"user-{os.getuid()}"
