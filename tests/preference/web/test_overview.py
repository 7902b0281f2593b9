"""The owner's figures, worked out by hand."""

from rlhf_cli.preference.agreement import agreement_of
from rlhf_cli.preference.ballots import Vote
from rlhf_cli.preference.web.overview import overview_of


def test_nothing_yet():
    assert overview_of(agreement_of([])).rows == {}
    assert overview_of(agreement_of([])).sentences == ()


def test_choices_position_and_time_by_person():
    votes = [
        Vote(1, "1", "ana", seconds=2.0, first=1),  # chose A
        Vote(2, "1", "ana", seconds=4.0, first=2),  # chose B
        Vote(3, "2", "ana", seconds=90.0, first=2),  # chose A
        Vote(4, "tie", "ana", seconds=3.0, first=1),
        Vote(4, "both_bad", "ben", seconds=10.0, first=1),
    ]
    overview = overview_of(agreement_of(votes))
    assert overview.titles == ("A chosen", "Tie", "Both bad", "Skip", "As others", "Median time")
    assert overview.rows == {
        "ana": ("67% of 3", "1", "0", "0", "0%", "4 s"),  # the median of 2, 3, 4 and 90 is 3.5
        "ben": ("–", "0", "1", "0", "0%", "10 s"),
    }
