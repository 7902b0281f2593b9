"""The pages as a browser without scripts uses them."""

import sqlite3

import pytest
from starlette.testclient import TestClient
from visitors import OWNER, MakePage, Page, forms_in, send, text_of

from rlhf_cli.errors import ResourceError, RunConflictError
from rlhf_cli.preference.labeler import Verdict
from rlhf_cli.preference.web.access import Member

JSON = {"accept": "application/json"}


def test_a_question_shows_prompt_both_answers_and_how_far_one_is(owner: TestClient):
    reply = owner.get("/")
    said = text_of(reply.text)
    assert reply.status_code == 200
    assert said.index("What is 2+2?") < said.index("It is 4 .") < said.index("Five.")
    assert "0 of 3" in said
    assert "It is **4**." in reply.text  # as it was written, for those who want to see it


@pytest.mark.parametrize("winner", ["first", "second", "tie", "both_bad", "skip"])
def test_each_verdict_is_stored_as_given(winner: str, page: Page, owner: TestClient):
    send(
        owner, "/answer", winner=winner, reason=" short\r\nand right ", tag=["clear", "made up"], strength="2"
    )
    (verdict,) = page.desk.votes.values()
    strength = 2 if winner in ("first", "second") else 0
    expected = Verdict(winner, "short\nand right", verdict.seconds, strength=strength, tags=("clear",))
    assert verdict == expected
    assert 0 <= verdict.seconds < 60


def test_time_comes_from_the_script_where_there_is_one(page: Page, owner: TestClient):
    send(owner, "/answer", winner="tie", milliseconds="1250")
    assert [verdict.seconds for verdict in page.desk.votes.values()] == [1.25]


def test_the_next_question_follows_and_thanks_come_last(owner: TestClient):
    assert "Once upon a time" in send(owner, "/answer", winner="first").text
    assert "Bye" in send(owner, "/answer", winner="first").text
    assert "All done" in send(owner, "/answer", winner="first").text


def test_a_form_sent_twice_is_one_vote(page: Page, owner: TestClient):
    form = forms_in(owner.get("/").text)["/answer"] | {"winner": "first"}
    for _ in range(3):
        assert owner.post("/answer", data=form, headers=JSON).json() == {"saved": True}
    assert len(page.desk.votes) == 1


def test_two_windows_with_one_question_cannot_both_vote(page: Page, owner: TestClient):
    one, two = (forms_in(owner.get("/").text)["/answer"] for _ in range(2))
    owner.post("/answer", data=one | {"winner": "first"})
    late = owner.post("/answer", data=two | {"winner": "second"})
    assert late.status_code == 409
    assert "answered already" in late.text
    assert "secret" not in late.text  # where the store is may name a model
    assert [verdict.winner for verdict in page.desk.votes.values()] == ["first"]


def test_undo_asks_the_same_question_again(page: Page, owner: TestClient):
    send(owner, "/answer", winner="first")
    assert "What is 2+2?" in send(owner, "/undo").text
    assert not page.desk.votes


@pytest.mark.parametrize(
    "wrong",
    [{"winner": "third"}, {"winner": ""}, {"strength": "4"}, {"strength": "-1"}, {"id": "x"}, {"key": ""}],
)
def test_a_form_that_makes_no_sense_is_refused_in_words(wrong: dict, page: Page, owner: TestClient):
    reply = send(owner, "/answer", headers=JSON, **({"winner": "first"} | wrong))
    assert reply.status_code == 422
    assert reply.json()["error"]
    assert not page.desk.votes


def test_what_cannot_be_saved_is_said(page: Page, owner: TestClient, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise ResourceError("database or disk is full", where="runs/sft-7b/collect.db")

    monkeypatch.setattr(page.desk, "vote", full)
    reply = send(owner, "/answer", winner="first", headers=JSON)
    assert reply.status_code == 503
    assert "disk is full" in reply.json()["error"]
    assert "sft-7b" not in reply.text


def test_a_busy_database_is_no_final_refusal(page: Page, owner: TestClient, monkeypatch: pytest.MonkeyPatch):
    def busy(*_: object, **__: object) -> None:
        raise RunConflictError("database is locked") from sqlite3.OperationalError()

    monkeypatch.setattr(page.desk, "vote", busy)
    assert send(owner, "/answer", winner="first", headers=JSON).status_code == 503


def test_history_tells_the_newest_first(owner: TestClient):
    assert "Nothing yet" in owner.get("/history").text
    send(owner, "/answer", winner="first", strength="3", reason="it is right")
    send(owner, "/answer", winner="both_bad")
    said = text_of(owner.get("/history").text)
    assert said.index("Both are bad Once upon") < said.index("A is much better")
    assert "it is right" in said


def test_theme_and_view_stay_with_the_browser(owner: TestClient):
    assert 'data-theme="auto" data-view="rendered"' in owner.get("/").text
    send(owner, "/display", theme="dark")
    assert 'data-theme="dark" data-view="raw"' in send(owner, "/display", view="raw").text
    send(owner, "/display", theme='"><script>')
    assert 'data-theme="dark"' in owner.get("/").text


def test_an_invitation_is_looked_at_often_and_used_once(page: Page):
    link = f"/join/{page.access.invite(Member('ana', owner=False))}"
    for _ in range(3):  # chats fetch links for a preview
        assert "Welcome, ana" in page.visitor().get(link).text
    ana = page.visitor()
    assert "What is 2+2?" in ana.post(link).text
    assert page.visitor().get(link).status_code == 401
    assert page.visitor().post(link).status_code == 401
    assert ana.get("/").status_code == 200


def test_people_vote_under_their_own_names(page: Page, owner: TestClient, ana: TestClient):
    send(owner, "/answer", winner="first")
    send(ana, "/answer", winner="second")
    assert {who: verdict.winner for (who, _), verdict in page.desk.votes.items()} == {
        OWNER: "first",
        "ana": "second",
    }


def test_the_owner_sees_progress_and_agreement(owner: TestClient, ana: TestClient):
    for mine, theirs in [("first", "first"), ("tie", "second"), ("skip", "first")]:
        send(owner, "/answer", winner=mine, milliseconds="2000")
        send(ana, "/answer", winner=theirs, milliseconds="3000")
    said = text_of(owner.get("/owner").text)
    assert "ana and robin agree on 1 of 2 pairs (50%), Cohen" in said
    assert "robin owner 3 100% of 1 1 0 1 50% 2 s" in said
    assert "ana joined 3 67% of 3 0 0 0 50% 3 s" in said


def test_the_owner_hands_out_links_and_takes_them_back(page: Page, owner: TestClient):
    reply = send(owner, "/owner/invite", at="/owner", name="cleo")
    link = reply.text.partition(f"{page.settings.shared_url}/join/")[2].partition('"')[0]
    cleo = page.visitor()
    assert cleo.post(f"/join/{link}").status_code == 200
    assert link not in owner.get("/owner").text
    send(owner, "/owner/revoke", at="/owner", name="cleo")
    assert cleo.get("/").status_code == 401


@pytest.mark.parametrize("name", ["", OWNER, "x" * 65, "a\x07b"])
def test_a_name_that_cannot_be_invited_is_refused(name: str, owner: TestClient):
    assert send(owner, "/owner/invite", at="/owner", name=name).status_code == 422


def test_leaving_ends_the_session(owner: TestClient):
    token = forms_in(owner.get("/").text)["/answer"]["form_token"]
    assert owner.post("/leave", data={"form_token": token}).status_code == 401
    assert owner.get("/").status_code == 401


def test_waiting_for_others_looks_again(make_page: MakePage, monkeypatch: pytest.MonkeyPatch):
    page = make_page()
    monkeypatch.setattr(page.desk, "next", lambda annotator: None)
    client = page.visitor()
    reply = client.get(f"/join/{page.access.invite(Member(OWNER, owner=True))}")
    assert 'http-equiv="refresh"' in reply.text
    assert "Nothing for you right now" in reply.text
