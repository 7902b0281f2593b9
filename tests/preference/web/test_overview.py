"""The owner's figures, worked out by hand."""

from rlhf_cli.preference.ballots import Vote
from rlhf_cli.preference.web.overview import overview_of


def test_nothing_yet():
    assert overview_of([]).rows == {}
    assert overview_of([]).sentences == ()


def test_choices_position_and_time_by_person():
    votes = [
        Vote(1, "1", "ana", seconds=2.0, first=1),  # chose A
        Vote(2, "1", "ana", seconds=4.0, first=2),  # chose B
        Vote(3, "2", "ana", seconds=90.0, first=2),  # chose A
        Vote(4, "tie", "ana", seconds=3.0, first=1),
        Vote(5, "both_bad", "ben", seconds=10.0, first=1),
    ]
    overview = overview_of(votes)
    assert overview.titles == ("A chosen", "Tie", "Both bad", "Skip", "Median time")
    assert overview.rows == {
        "ana": ("67% of 3", "1", "0", "0", "4 s"),  # the median of 2, 3, 4 and 90 is 3.5
        "ben": ("–", "0", "1", "0", "10 s"),
    }


def test_two_people_agree_on_responses_not_on_places():
    votes = [
        Vote(1, "1", "ana", first=1),
        Vote(1, "1", "ben", first=2),
        Vote(2, "tie", "ana"),
        Vote(2, "both_bad", "ben"),
        Vote(3, "2", "ana"),
        Vote(3, "skip", "ben"),  # no opinion to agree with
        Vote(4, "2", "ana"),  # ben was not asked
    ]
    assert overview_of(votes).sentences == ("ana and ben agree on 1 of 2 pairs (50%).",)
