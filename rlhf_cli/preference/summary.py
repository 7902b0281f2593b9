"""What became of the pairs, and what a reader of the votes should know: length, position, cut answers."""

from collections import Counter
from collections.abc import Sequence

from rlhf_cli.preference.consensus import Outcome
from rlhf_cli.preference.store import Store


def summarise(store: Store, decided: Sequence[Outcome]) -> dict[str, float]:
    """Count the pairs by what became of them and measure two confounds of the decided ones.

    num_pairs = decided + ties + both_bad + skipped + errors + identical_pairs once every pair is judged. num_votes
    counts the votes behind them; surplus_votes, beyond the number wanted, are not among them. chosen_longer_rate is
    over decided pairs of different length in characters, first_shown_win_rate over votes for one of the answers; a
    rate over nothing is left out.
    """
    winners = Counter(outcome.winner for outcome in decided)
    identical = store.num_pairs(identical=True)
    counts = {
        "num_pairs": store.num_pairs(identical=False) + identical,
        "num_votes": sum(len(outcome.votes) for outcome in decided),
        "decided": winners["1"] + winners["2"],
        "ties": winners["tie"],
        "both_bad": winners["both_bad"],
        "skipped": winners["skip"],
        "errors": winners["error"],
        "identical_pairs": identical,
        "surplus_votes": len(store.votes(surplus=True)),
    }
    confounds = {
        "chosen_longer_rate": _chosen_longer(store, decided),
        "first_shown_win_rate": _first_shown_wins(decided),
    }
    rates = {name: sum(cases) / len(cases) for name, cases in confounds.items() if cases}
    if num_responses := store.num_responses():
        rates["unfinished_rate"] = store.num_responses("length") / num_responses
    return {**counts, **rates}


def _chosen_longer(store: Store, decided: Sequence[Outcome]) -> list[bool]:
    winners = {outcome.pair_id: outcome.winner for outcome in decided if outcome.winner in ("1", "2")}
    cases = []
    for pair in store.pairs():
        one, two = (len(response.text) for response in pair.responses)
        if pair.id in winners and one != two:
            cases.append((one > two) == (winners[pair.id] == "1"))
    return cases


def _first_shown_wins(decided: Sequence[Outcome]) -> list[bool]:
    votes = (vote for outcome in decided for vote in outcome.votes)
    return [vote.winner == str(vote.first) for vote in votes if vote.winner in ("1", "2") and vote.first]
