"""Getting in and paying in: fingerprints, the saved join line, deposits, balance and history."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from shardwork.v1 import wallet_pb2

from .conftest import Run, error_of, json_of
from .fake_coordinator import NOW_MS, Fake, Running


def test_login_enrols_and_remembers_the_join_line_for_the_owner_only(run: Run, fake: Fake, home: Path) -> None:
    result = run("login", fake.join, "--name", "ada")
    assert result.exit_code == 0, result.stderr
    assert "shardwork wallet deposit" in result.stderr
    saved = home / "config" / "client.toml"
    assert fake.join in saved.read_text()
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert fake.names == ["ada"]
    assert run("wallet", "balance").exit_code == 0


def test_login_json_names_the_party(run: Run, fake: Fake) -> None:
    told = json_of(run("login", fake.join, "--json"))
    assert told["join"] == fake.join
    assert len(told["party_id"]) == 16


def test_a_wrong_fingerprint_is_exit_5_and_nothing_is_saved(run: Run, fake: Fake, home: Path) -> None:
    result = run("login", fake.join[:-4] + "0000", "--json")
    assert result.exit_code == 5
    assert error_of(result)["exit_code"] == 5
    assert not (home / "config" / "client.toml").exists()


def test_a_malformed_join_line_is_exit_3(run: Run) -> None:
    assert run("login", "https://example.org").exit_code == 3


def test_without_a_login_every_command_is_exit_5_with_the_way_in(run: Run) -> None:
    for command in (("wallet", "balance"), ("job", "list"), ("job", "watch", "x")):
        result = run(*command)
        assert result.exit_code == 5
        assert "shardwork login" in result.stderr


def test_an_absent_coordinator_is_exit_7(logged_in: Run, running: Running) -> None:
    running.stop()
    result = logged_in("wallet", "balance", "--json")
    assert result.exit_code == 7
    assert error_of(result)["code"] == "coordinator.unreachable"


def test_flag_beats_environment_beats_file(
    logged_in: Run, fake: Fake, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = fake.join.replace(fake.address, "127.0.0.1:9")
    monkeypatch.setenv("SHARDWORK_JOIN", absent)
    assert logged_in("wallet", "balance").exit_code == 7
    assert logged_in("--join", fake.join, "wallet", "balance").exit_code == 0


def test_a_coordinator_that_joined_after_the_login_is_remembered(logged_in: Run, fake: Fake, home: Path) -> None:
    saved = home / "config" / "client.toml"
    fake.others = ["127.0.0.1:9"]
    assert logged_in("wallet", "balance").exit_code == 0
    assert f"shardwork://{fake.address},127.0.0.1:9?ca=" in saved.read_text()
    # the first is gone, and the way in is the one that was not there at the login
    remembered = saved.read_text()
    saved.write_text(remembered.replace(f"{fake.address},127.0.0.1:9", f"127.0.0.1:9,{fake.address}"))
    assert logged_in("wallet", "balance").exit_code == 0


def test_a_given_join_line_is_not_written_over_the_remembered_one(logged_in: Run, fake: Fake, home: Path) -> None:
    before = (home / "config" / "client.toml").read_text()
    fake.others = ["127.0.0.1:9"]
    assert logged_in("--join", fake.join, "wallet", "balance").exit_code == 0
    assert (home / "config" / "client.toml").read_text() == before


def test_many_coordinators_are_not_remembered_for_ever(logged_in: Run, fake: Fake, home: Path) -> None:
    for number in range(20):
        fake.others = [f"127.0.0.2:{9000 + number}"]
        assert logged_in("wallet", "balance").exit_code == 0
    line = (home / "config" / "client.toml").read_text()
    assert line.count(":90") == 7 and f"shardwork://{fake.address}," in line and "127.0.0.2:9019" in line


def test_a_lost_key_is_told_and_never_silently_replaced(logged_in: Run, home: Path) -> None:
    key = home / "config" / "keys" / "requester.key"
    key.rename(home / "kept")
    refused = logged_in("job", "list", "--json")
    assert (refused.exit_code, error_of(refused)["code"]) == (5, "login.key_missing")
    assert "shardwork init" in error_of(refused)["next_step"] and not key.exists()
    assert logged_in("init", "--yes").exit_code == 0 and key.exists()
    assert logged_in("job", "list").exit_code == 0


def test_an_unknown_key_in_the_settings_names_the_nearest(logged_in: Run, home: Path) -> None:
    (home / "config" / "client.toml").write_text('jion = "shardwork://x"\n')
    result = logged_in("wallet", "balance")
    assert result.exit_code == 3
    # a long path is folded where the terminal ends
    assert "client.toml:1:jion" in "".join(result.stderr.split())
    assert "join" in result.stderr


def test_settings_of_the_services_in_the_same_shell_do_no_harm(
    logged_in: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHARDWORK_DATA_DIR", "/srv/shardwork")
    assert logged_in("wallet", "balance").exit_code == 0
    monkeypatch.setenv("SHARDWORK_JION", fake.join)
    refused = logged_in("wallet", "balance")
    assert refused.exit_code == 3
    assert "SHARDWORK_JOIN" in refused.stderr


def test_a_simulated_deposit_says_so_loudly(logged_in: Run, fake: Fake) -> None:
    result = logged_in("wallet", "deposit", 2000)
    assert result.exit_code == 0
    assert "SIMULATED SATS" in result.stderr
    assert "2,000 sat" in result.stdout
    assert fake.available_msat == 2_000_000


def test_a_real_deposit_shows_the_invoice_and_waits_for_the_payment(
    logged_in: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardwork.client.wallet.POLL_S", 0.01)
    fake.simulated, fake.polls_until_paid = False, 3
    result = logged_in("wallet", "deposit", 2000, "--json")
    told = json_of(result)
    assert told["state"] == "settled" and told["simulated"] is False
    assert told["balance"]["available_msat"] == 2_000_000
    assert "lnbcrt20u1fake" in result.stderr
    assert "SIMULATED" not in result.stderr


def test_a_deposit_need_not_wait(logged_in: Run, fake: Fake) -> None:
    fake.polls_until_paid = 100
    result = logged_in("wallet", "deposit", 5, "--no-wait")
    assert result.exit_code == 0
    assert "open" in result.stdout


def test_an_expired_invoice_is_exit_1(logged_in: Run, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardwork.client.wallet.POLL_S", 0.01)
    expired = wallet_pb2.Deposit(id="dep0", msat=5000, invoice="ln", state="expired")
    fake.deposits["dep0"] = expired
    fake.deposit_keys = _EveryKeyIs("dep0")
    result = logged_in("wallet", "deposit", 5, "--json")
    assert result.exit_code == 1
    assert error_of(result)["code"] == "deposit.expired"


class _EveryKeyIs(dict[str, str]):
    def __init__(self, value: str) -> None:
        super().__init__()
        self.value = value

    def setdefault(self, key: str, default: str = "") -> str:
        return self.value


def test_deposits_of_nothing_are_usage_errors(logged_in: Run) -> None:
    assert logged_in("wallet", "deposit", 0).exit_code == 2
    assert logged_in("wallet", "deposit", "lots").exit_code == 2
    assert logged_in("wallet", "deposit").exit_code == 2


def test_balance_json_has_the_contract_s_keys(logged_in: Run, fake: Fake) -> None:
    fake.available_msat, fake.held_msat = 1_234_567, 8_000
    told = json_of(logged_in("wallet", "balance", "--json"))
    assert told["available_msat"] == 1_234_567
    assert told["held_msat"] == 8_000
    assert "1,234.567 sat" in logged_in("wallet", "balance").stdout


def test_history_pages_and_signs_amounts(logged_in: Run, fake: Fake) -> None:
    fake.transfers = [
        wallet_pb2.TransferView(
            sequence=9 - number,
            id=f"t{number}",
            at_unix_ms=NOW_MS,
            msat=-1000 * number or 5000,
            kind="escrow",
            state="posted",
            reference="job",
        )
        for number in range(5)
    ]
    told = json_of(logged_in("wallet", "history", "--json"))["transfers"]
    assert [each["sequence"] for each in told] == [9, 8, 7, 6, 5]
    page = logged_in("wallet", "history", "-n", 2).stdout
    assert "+5 sat" in page and "-1 sat" in page and "-2 sat" not in page


@pytest.mark.parametrize("width", [50, 70, 100])
def test_no_column_of_the_history_is_cut(
    logged_in: Run, fake: Fake, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = "withdrawal:848b791c4ae29c14/62c6022a0763376c122bbe94dd4feb44"
    fake.transfers = [
        wallet_pb2.TransferView(
            sequence=1, at_unix_ms=NOW_MS, msat=-22_000, kind="withdrawal", state="voided", reference=reference
        )
    ]
    monkeypatch.setenv("COLUMNS", str(width))
    page = logged_in("wallet", "history").stdout
    assert max(map(len, page.splitlines())) <= width and "…" not in page
    assert "-22 sat  withdrawal  voided" in page and reference in "".join(page.split()).replace("voided", "")
