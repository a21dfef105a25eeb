"""wallet withdraw: asks, never doubles, says what became of it, and can be called off."""

from __future__ import annotations

import pytest

from .conftest import Run, error_of, json_of
from .fake_coordinator import Fake
from .terminal import Terminal


@pytest.fixture(autouse=True)
def rich_wallet(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardwork.client.wallet.POLL_S", 0.01)
    fake.available_msat = 1_000_000


def test_sats_go_out_once_and_the_receipt_is_shown(logged_in: Run, fake: Fake) -> None:
    told = json_of(logged_in("wallet", "withdraw", "500", "me@simulated", "--yes", "--json"))
    assert (told["state"], told["msat"], told["simulated"]) == ("settled", 500_000, True)
    assert list(fake.withdrawals) == [told["id"]]
    again = logged_in("wallet", "withdraw", "500", "me@simulated", "--yes")
    assert again.exit_code == 0 and "arrived at me@simulated" in again.stderr and "SIMULATED SATS" in again.stderr
    assert len(fake.withdrawals) == 2  # the first was told, so this was another wish


def test_a_failed_one_is_exit_1_with_its_reason(logged_in: Run, fake: Fake) -> None:
    fake.withdrawal_end = "failed"
    result = logged_in("wallet", "withdraw", "500", "me@simulated", "--yes", "--json")
    assert (result.exit_code, error_of(result)["code"]) == (1, "payout.failed")


def test_one_in_doubt_says_so_and_is_not_asked_for_again(logged_in: Run, fake: Fake) -> None:
    fake.withdrawal_end = "unknown"
    result = logged_in("wallet", "withdraw", "500", "me@simulated", "--yes")
    assert result.exit_code == 0 and "is unknown" in result.stderr
    assert len(fake.withdrawals) == 1


def test_too_much_is_exit_6(logged_in: Run, fake: Fake) -> None:
    result = logged_in("wallet", "withdraw", "5000", "me@simulated", "--yes", "--json")
    assert (result.exit_code, error_of(result)["code"]) == (6, "withdrawal.too_much")


def test_without_a_terminal_it_must_be_agreed_to_beforehand(logged_in: Run, fake: Fake) -> None:
    result = logged_in("wallet", "withdraw", "500", "me@simulated")
    assert result.exit_code == 2 and "--yes" in result.stderr
    assert fake.withdrawals == {}


def test_ctrl_c_at_the_question_takes_nothing_out(logged_in: Run, fake: Fake) -> None:
    terminal = Terminal("wallet", "withdraw", "500", "me@simulated")
    terminal.read_until("[y/N]")
    assert terminal.interrupt() == 130
    assert fake.withdrawals == {} and "Nothing was taken out." in terminal.text


def test_one_that_was_not_sent_can_be_called_off(logged_in: Run, fake: Fake) -> None:
    made = json_of(logged_in("wallet", "withdraw", "500", "me@simulated", "--yes", "--no-wait", "--json"))
    assert made["state"] == "created"
    assert logged_in("wallet", "cancel", made["id"]).exit_code == 0
    assert fake.available_msat == 1_000_000
    assert error_of(logged_in("wallet", "cancel", made["id"], "--json"))["code"] == "withdrawal.on_its_way"
