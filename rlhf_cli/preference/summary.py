"""What became of the pairs, and what a reader of the votes should know: length, position, cut answers."""

from collections import Counter
from collections.abc import Sequence

from rlhf_cli.preference.store import Store, Vote


def summarise(store: Store) -> dict[str, float]:
    """Count the pairs by what became of them and measure two confounds of the decided ones.

    num_pairs = num_votes + identical_pairs once every pair is judged; num_votes = decided + ties + both_bad +
    skipped. chosen_longer_rate is over decided pairs of different length in characters; a rate over no pair is
    left out.
    """
    votes = store.votes()
    winners = Counter(vote.winner for vote in votes)
    identical = store.num_pairs(identical=True)
    counts = {
        "num_pairs": store.num_pairs(identical=False) + identical,
        "num_votes": len(votes),
        "decided": winners["1"] + winners["2"],
        "ties": winners["tie"],
        "both_bad": winners["both_bad"],
        "skipped": winners["skip"],
        "identical_pairs": identical,
    }
    rates = {name: sum(cases) / len(cases) for name, cases in _confounds(store, votes).items() if cases}
    if num_responses := store.num_responses():
        rates["unfinished_rate"] = store.num_responses("length") / num_responses
    return {**counts, **rates}


def _confounds(store: Store, votes: Sequence[Vote]) -> dict[str, list[bool]]:
    longer, shown_first = [], []
    for vote in votes:
        if vote.winner not in ("1", "2"):
            continue
        pair = store.pair(vote.pair_id)
        one, two = (len(response.text) for response in pair.responses)
        if one != two:
            longer.append((one > two) == (vote.winner == "1"))
        if vote.first:
            shown_first.append(vote.winner == str(vote.first))
    return {"chosen_longer_rate": longer, "first_shown_win_rate": shown_first}
