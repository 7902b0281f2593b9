"""A real browser at the page: votes by key and by click, alone and in company, with and without scripts."""

from browsing import see
from page_server import Server


def test_votes_by_key_in_every_way_there_is(server: Server, visit):
    robin = visit(server.links[0])
    for number, key in enumerate("abtxs", 2):
        robin.press(key, then=f"Question {number}")
    assert server.said_by("robin") == dict(enumerate(["first", "second", "tie", "both_bad", "skip"], 1))


def test_votes_by_click(server: Server, visit):
    robin = visit(server.links[0])
    for number, name in enumerate(["A is better", "B is better", "Tie", "Both bad", "Skip"], 2):
        robin.click(name, then=f"Question {number}")
    assert server.said_by("robin") == dict(enumerate(["first", "second", "tie", "both_bad", "skip"], 1))


def test_strength_reason_and_tags_go_with_the_vote(server: Server, visit):
    robin = visit(server.links[0])
    robin.page.keyboard.press("1")
    robin.page.keyboard.press("3")
    robin.page.keyboard.press("r")
    robin.page.keyboard.type("ab, s and u are letters here")
    robin.page.keyboard.press("Escape")
    robin.page.get_by_text("clear", exact=True).click()
    robin.press("b", then="Question 2")
    (verdict,) = server.desk.votes.values()
    assert (verdict.winner, verdict.strength, verdict.tags) == ("second", 3, ("clear",))
    assert verdict.reason == "ab, s and u are letters here"
    assert 0 < verdict.seconds < 60


def test_a_key_held_down_votes_once(server: Server, visit):
    robin = visit(server.links[0])
    robin.page.keyboard.down("a")
    for _ in range(20):
        robin.page.keyboard.down("a")  # repeats, as the system sends them
    see(robin.page, "Question 2")
    robin.page.wait_for_timeout(300)
    assert server.said_by("robin") == {1: "first"}


def test_undo_goes_back_as_far_as_one_likes(server: Server, visit):
    robin = visit(server.links[0])
    robin.press("a", then="Question 2")
    robin.press("b", then="Question 3")
    robin.press("u", then="Question 2")
    robin.click("Undo", then="Question 1")
    assert server.desk.votes == {}
    robin.press("t", then="Question 2")
    assert server.said_by("robin") == {1: "tie"}


def test_a_reload_keeps_the_question_and_what_was_typed(server: Server, visit):
    robin = visit(server.links[0])
    robin.press("a", then="Question 2")
    robin.page.get_by_placeholder("Reason").fill("half a thou")
    robin.page.reload()
    see(robin.page, "Question 2")
    assert robin.page.get_by_placeholder("Reason").input_value() == "half a thou"
    robin.press("b", then="Question 3")
    assert robin.page.get_by_placeholder("Reason").input_value() == ""
    assert [verdict.reason for verdict in server.desk.votes.values()] == ["", "half a thou"]


def test_two_people_at_once_keep_their_own_places(server: Server, visit):
    robin, ana = visit(server.links[0]), visit(server.links[1])
    robin.press("a", then="Question 2")
    ana.press("b", then="Question 2")
    ana.press("b", then="Question 3")
    robin.press("t", then="Question 3")
    assert server.said_by("robin") == {1: "first", 2: "tie"}
    assert server.said_by("ana") == {1: "second", 2: "second"}
    robin.page.goto(f"http://127.0.0.1:{server.port}/owner")
    assert robin.page.get_by_text("ana and robin agree on 0 of 2 pairs (0%)").is_visible()


def test_without_scripts_everything_works(server: Server, visit):
    robin = visit(server.links[0], java_script_enabled=False)
    robin.page.get_by_text("clearly").click()
    robin.click("B is better", then="Question 2")
    robin.click("Skip", then="Question 3")
    robin.click("Undo", then="Question 2")
    robin.page.get_by_role("button", name="Plain").click()
    robin.page.locator(".answer .raw").first.wait_for()  # visible, the formatted form beside it is not
    robin.page.get_by_role("link", name="History").click()
    robin.page.get_by_text("B is clearly better").first.wait_for()
    assert server.said_by("robin") == {1: "second"}
