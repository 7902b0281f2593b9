"""What keeps strangers, other sites and the models' own words out."""

import re

import pytest
from hostile import HOSTILE
from starlette.testclient import TestClient
from visitors import BASE, OWNER, MakePage, Page, forms_in, send

from rlhf_cli.preference.web.access import Member
from rlhf_cli.preference.web.forms import MAX_BODY_BYTES

SECRETS = ["runs/sft", "temperature", "0.7", "d0d0", "gold"]


def come_in(page: Page) -> TestClient:
    client = page.visitor()
    client.get(f"/join/{page.access.invite(Member(OWNER, owner=True))}")
    return client


@pytest.mark.parametrize("path", ["/", "/history", "/owner", "/join/x", "/nowhere", "/static/page.js"])
def test_every_reply_forbids_what_a_page_could_do(path: str, page: Page, owner: TestClient):
    for client in (owner, page.visitor()):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none';")
        assert "unsafe" not in policy
        assert "*" not in policy
        assert {"form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(policy.split("; "))
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"


def test_the_session_is_out_of_reach_of_scripts_and_other_sites(page: Page):
    link = f"/join/{page.access.invite(Member(OWNER, owner=True))}"
    cookie = page.visitor().get(link, follow_redirects=False).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie  # plain http would never send it back


def test_behind_https_the_session_never_travels_in_the_clear(make_page: MakePage):
    page = make_page(public_url="https://labels.example.org")
    client = page.visitor()
    link = f"/join/{page.access.invite(Member(OWNER, owner=True))}"
    reply = client.get(link, headers={"host": "labels.example.org"}, follow_redirects=False)
    assert "secure" in reply.headers["set-cookie"].lower()


@pytest.mark.parametrize("path", ["/", "/history", "/owner"])
def test_without_a_session_nothing_is_shown(path: str, page: Page):
    reply = page.visitor().get(path)
    assert reply.status_code == 401
    assert "2+2" not in reply.text


@pytest.mark.parametrize("path", ["/answer", "/undo", "/display", "/leave", "/owner/invite", "/owner/revoke"])
def test_without_a_session_nothing_is_taken(path: str, page: Page):
    assert page.visitor().post(path, data={"winner": "first"}).status_code == 401
    assert not page.desk.votes


def test_annotators_are_no_owners(page: Page, ana: TestClient):
    token = forms_in(ana.get("/").text)["/answer"]["form_token"]
    assert ana.get("/owner").status_code == 404
    assert ana.post("/owner/invite", data={"name": "eve", "form_token": token}).status_code == 404
    assert "/owner" not in ana.get("/").text


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8642", "127.0.0.1.evil.example", "", "[::"])
def test_a_name_pointed_at_this_machine_is_not_ours(host: str, owner: TestClient):
    assert owner.get("/", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8642", "localhost", "127.0.0.1:9000", "[::1]:8642"])
def test_a_tunnel_may_have_another_port(host: str, page: Page):
    assert page.visitor().get("/join/x", headers={"host": host}).status_code == 401


def test_bound_to_all_addresses_it_answers_to_addresses(make_page: MakePage):
    page = make_page(host="0.0.0.0", annotators=("ana",), public_url="http://labels.example.org")
    for host, status in [
        ("192.168.1.7:8642", 401),
        ("labels.example.org", 401),
        ("rebound.example", 400),
        ("0.0.0.0", 401),
    ]:
        assert page.visitor().get("/", headers={"host": host}).status_code == status, host


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:8643"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": "null"},
    ],
)
def test_another_site_cannot_vote(headers: dict, page: Page, owner: TestClient):
    assert send(owner, "/answer", winner="first", headers=headers).status_code == 403
    assert not page.desk.votes


@pytest.mark.parametrize(
    "headers", [{}, {"origin": BASE}, {"origin": "null", "sec-fetch-site": "same-origin"}]
)
def test_our_own_page_can_vote(headers: dict, page: Page, owner: TestClient):
    assert send(owner, "/answer", winner="first", headers=headers).status_code == 200
    assert len(page.desk.votes) == 1


@pytest.mark.parametrize("token", ["", "0" * 64, "ü"])
def test_a_form_without_this_sessions_token_is_refused(token: str, page: Page, owner: TestClient):
    assert send(owner, "/answer", winner="first", form_token=token).status_code == 403
    assert not page.desk.votes


def test_other_sites_may_link_here_and_embed_nothing(owner: TestClient):
    follow = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert owner.get("/", headers=follow).status_code == 200
    for embed in ({"sec-fetch-dest": "iframe"}, {"sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"}):
        assert owner.get("/", headers=follow | embed).status_code == 403


def test_bodies_are_bounded_and_forms_only(page: Page, owner: TestClient):
    form = forms_in(owner.get("/").text)["/answer"]
    assert owner.post("/answer", data=form | {"reason": "x" * MAX_BODY_BYTES}).status_code == 413
    assert owner.post("/answer", json=form).status_code == 415
    assert owner.post("/answer", files={"key": b"x"}).status_code == 415
    assert owner.post("/answer", data={f"f{i}": "" for i in range(65)}).status_code == 400
    assert not page.desk.votes


@pytest.mark.parametrize(
    "path", ["/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2f..%2fdesk.py", "/static"]
)
def test_only_static_files_are_served(path: str, owner: TestClient):
    assert owner.get(path).status_code == 404


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_only_text(text: str, make_page: MakePage):
    page = make_page([(text, text, f"fine {text}")])
    client = come_in(page)
    html = client.get("/").text
    send(client, "/answer", winner="first", reason=text.encode("utf-8", "replace"))
    for shown in (html, client.get("/history").text, client.get("/owner").text):
        tags = re.findall(r"<[a-zA-Z/!][^>]*>", shown)
        assert not [
            tag for tag in tags if re.search(r"\son\w+\s*=|javascript:|style\s*=", tag, re.IGNORECASE)
        ]
        assert {re.match(r"</?(!?\w+)", tag).group(1).lower() for tag in tags} <= OURS
        assert shown.count("<script") == 1
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]", shown)


OURS = set(
    """!doctype html head meta title link script body header div span progress b nav a form input button svg circle path
    main section details summary dl dt dd kbd h1 h2 h3 h4 h5 h6 article label fieldset legend textarea p ol ul li pre
    code em strong s blockquote hr br table thead tbody tr th td""".split()
)


def test_nothing_an_annotator_sees_tells_who_wrote_an_answer(page: Page, ana: TestClient):
    send(ana, "/answer", winner="first")
    for path in ("/", "/history", "/static/page.js", "/static/page.css", "/owner"):
        reply = ana.get(path)
        seen = reply.text + str(reply.headers)
        assert not [secret for secret in SECRETS if secret in seen.replace("0.7s", "")]
