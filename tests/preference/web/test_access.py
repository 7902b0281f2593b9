"""Links that work once, sessions that last, and a file that opens nothing."""

from pathlib import Path

import pytest

from rlhf_cli.errors import DataError
from rlhf_cli.preference.web.access import SESSION_SECONDS, Access, Member, form_token

ANA, ROBIN = Member("ana", owner=False), Member("robin", owner=True)


def test_a_token_is_exchanged_once(tmp_path: Path):
    with Access(tmp_path / "access.db") as access:
        token = access.invite(ANA)
        assert access.invited(token) == ANA
        secret = access.redeem(token)
        assert secret is not None
        assert access.member(secret) == ANA
        assert access.redeem(token) is None
        assert access.invited(token) is None


def test_a_fresh_link_replaces_the_unused_one_of_the_same_person(tmp_path: Path):
    with Access(tmp_path / "access.db") as access:
        first, other, second = access.invite(ANA), access.invite(ROBIN), access.invite(ANA)
        assert [access.invited(token) for token in (first, other, second)] == [None, ROBIN, ANA]


def test_a_session_outlives_the_process_and_ends_in_time(tmp_path: Path):
    with Access(tmp_path / "access.db", clock=lambda: 1000.0) as access:
        secret = access.redeem(access.invite(ANA)) or ""
    for later, expected in [(SESSION_SECONDS - 1, ANA), (SESSION_SECONDS, None)]:
        with Access(tmp_path / "access.db", clock=lambda seconds=later: 1000.0 + seconds) as access:
            assert access.member(secret) == expected


def test_revoking_ends_what_an_annotator_has_and_nothing_else(tmp_path: Path):
    with Access(tmp_path / "access.db") as access:
        secrets = [
            access.redeem(access.invite(member)) or ""
            for member in (ANA, ROBIN, Member("robin", owner=False))
        ]
        unused = access.invite(ANA)
        assert access.standing() == {"ana": "joined", "robin": "joined"}
        access.revoke("ana")
        access.revoke("robin")
        assert [access.member(secret) for secret in secrets] == [None, ROBIN, None]
        assert access.invited(unused) is None


def test_leaving_ends_one_session_only(tmp_path: Path):
    with Access(tmp_path / "access.db") as access:
        here, there = (access.redeem(access.invite(ANA)) or "" for _ in range(2))
        access.leave(here)
        assert (access.member(here), access.member(there)) == (None, ANA)


def test_nothing_in_the_file_opens_anything(tmp_path: Path):
    path = tmp_path / "access.db"
    with Access(path) as access:
        token, used = access.invite(ROBIN), access.invite(ANA)
        secret = access.redeem(used) or ""
    content = path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0
    assert not [text for text in (token, used, secret, form_token(secret)) if text.encode() in content]
    assert min(len(token), len(secret)) >= 43  # 256 bits in base64


@pytest.mark.parametrize("guess", ["", "x", "ü", "\ud800", "' OR 1=1 --"])
def test_a_guess_is_nobody(guess: str, tmp_path: Path):
    with Access(tmp_path / "access.db") as access:
        access.redeem(access.invite(ANA))
        assert (access.member(guess), access.invited(guess), access.redeem(guess)) == (None, None, None)


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / "access.db").write_bytes(b"something else entirely, not a database" * 50)
    with pytest.raises(DataError):
        Access(tmp_path / "access.db")
