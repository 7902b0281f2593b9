"""A real browser in trouble: no server, a lost receipt, two windows; no vote is lost and none counted twice."""

from browsing import see
from page_server import Server


def test_an_unsaved_vote_waits_for_the_server_through_a_reload(server: Server, visit):
    robin = visit(server.links[0])
    server.down()
    robin.page.keyboard.press("a")
    robin.page.get_by_text("Your answer is kept in this browser").wait_for()
    robin.page.keyboard.press("b")  # not taken while the first one waits
    assert server.desk.votes == {}
    server.up()
    robin.page.reload()
    see(robin.page, "Question 2")
    assert server.said_by("robin") == {1: "first"}
    robin.complaints.clear()  # the browser itself reports connections that failed


def test_a_vote_whose_receipt_was_lost_is_stored_once(server: Server, visit):
    robin = visit(server.links[0])
    lost = []

    def lose(route) -> None:
        if not lost:
            lost.append(route.fetch())  # it arrives, and the reply does not
            route.abort()
        else:
            route.continue_()

    robin.page.route("**/answer", lose)
    robin.press("a", then="Question 2")
    assert lost
    assert server.said_by("robin") == {1: "first"}
    robin.complaints.clear()


def test_a_question_answered_in_another_window_is_said_so(server: Server, visit):
    robin = visit(server.links[0])
    other = robin.context.new_page()
    other.goto(robin.page.url)
    robin.press("a", then="Question 2")
    other.keyboard.press("b")
    other.get_by_text("this question is answered already").wait_for()
    see(other, "Question 2")
    assert server.said_by("robin") == {1: "first"}
