"""Rounds in trackers: every merged round once, with its cost; the packages themselves are fakes but for TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from shardwork import Client, InvalidInput, JobFailed
from shardwork.client.results import JobStatus, Report, Round, ShardPayment, Stage
from shardwork.client.tracking import record, trackers
from shardwork.client.tracking.points import points, priced
from tests.client.fake_coordinator import Cut, Fake
from tests.client.sample_jobs import JOB_ID, answer, failed_job, report, running_job, succeeded_job


def learned(number: int, state: str = "merged", **figures: Any) -> Round:
    return Round(number=number, kind="learn", state=state, train_loss=3.0, eval_loss=2.5, **figures)


def job(*stages: Stage) -> JobStatus:
    return JobStatus(id=JOB_ID, name="tutor", state="running", stages=stages)


def stage(name: str, *rounds: Round) -> Stage:
    return Stage(name=name, recipe="sft", state="running", planned_rounds=4, rounds=rounds)


def test_a_point_is_a_round_that_is_over_with_its_figures() -> None:
    done = learned(1, accepted=4, seconds=2.0, bytes_up=10, bytes_down=20, rejected=1)
    publishing = Round(number=3, kind="publish", state="merged")
    (point,) = points(job(stage("sft", done, learned(2, "open"), publishing)))
    assert (point.key, point.step) == ("sft/1", 1)
    assert point.scalars == {
        "train_loss": 3.0,
        "eval_loss": 2.5,
        "seconds": 2.0,
        "results_per_second": 2.0,
        "bytes_up": 10.0,
        "bytes_down": 20.0,
        "rejected": 1.0,
    }


def test_stages_do_not_share_a_name_and_losses_that_are_no_numbers_are_left_out() -> None:
    lost = Round(number=1, kind="learn", state="rolled_back", train_loss=float("nan"), eval_loss=float("inf"))
    one, other = points(job(stage("ground", learned(1)), stage("tune", lost)))
    assert one.scalars["ground/eval_loss"] == 2.5
    assert not [name for name in other.scalars if "loss" in name] and "tune/seconds" in other.scalars


def test_a_rounds_cost_is_what_its_workers_were_paid() -> None:
    shards = [f"{JOB_ID}/sft/r1/learn/s0", f"{JOB_ID}/sft/r1/evaluate/s0", f"{JOB_ID}/sft/r10/learn/s0"]
    payments = tuple(ShardPayment(shard=each, replica=0, worker_id="w", phase="learn", msat=1500) for each in shards)
    status = job(stage("sft", learned(1)))
    found = Report(status=status, workers=(), payments=payments, payments_left_out=0)
    assert priced(points(status)[0], found).scalars["cost_sats"] == 3.0


class FakeTracker(ModuleType):
    """What each of the packages is to us, and everything that it was told: (step, name, value)."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None, origin="somewhere")
        self.told: list[tuple[int | None, dict[str, float]]] = []
        self.opened: list[dict[str, Any]] = []
        self.closed = 0
        self.runs: list[Any] = []

    # trackio and wandb
    def init(self, **settings: Any) -> FakeTracker:
        print("hello from a tracker")
        self.opened.append(settings)
        return self

    def log(self, scalars: dict[str, float], step: int | None = None) -> None:
        self.told.append((step if step is not None else int(scalars["round"]), scalars))

    def finish(self) -> None:
        self.closed += 1

    def define_metric(self, *_: object, **__: object) -> None: ...

    # mlflow
    def MlflowClient(self, tracking_uri: str) -> FakeTracker:
        self.opened.append({"tracking_uri": tracking_uri})
        return self

    def get_experiment_by_name(self, _name: str) -> None:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def search_runs(self, _experiments: list[str], filter_string: str) -> list[Any]:
        assert JOB_ID in filter_string
        return self.runs

    def create_run(self, _experiment: str, **_settings: Any) -> Any:
        self.runs.append(SimpleNamespace(info=SimpleNamespace(run_id="r")))
        return self.runs[0]

    def log_metric(self, _run: str, key: str, value: float, step: int) -> None:
        self.told.append((step, {key: value}))

    def set_terminated(self, _run: str) -> None:
        self.closed += 1


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], FakeTracker]:
    def made(name: str) -> FakeTracker:
        fake = FakeTracker(name)
        monkeypatch.setitem(sys.modules, name, fake)
        return fake

    return made


@pytest.fixture
def watched(fake: Fake) -> Fake:
    """A job in its third round, whose watch then tells of its end."""
    fake.jobs[JOB_ID], fake.reports[JOB_ID] = running_job(), report()
    fake.watch_script = [answer(), answer(job=succeeded_job())]
    return fake


def steps(told: list[tuple[int | None, dict[str, float]]], name: str = "eval_loss") -> list[int | None]:
    return [step for step, scalars in told if name in scalars]


@pytest.mark.parametrize("name", ["trackio", "mlflow", "wandb"])
def test_each_round_is_told_once_however_often_the_job_is_watched(
    name: str, package: Callable[[str], FakeTracker], client: Client, watched: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    tracker = package(name)
    client.job(JOB_ID).wait(report_to=name)
    assert steps(tracker.told) == [1, 2, 3, 4]
    assert steps(tracker.told, "cost_sats") == [0, 1, 2, 3, 4]
    costs = [scalars["cost_sats"] for _, scalars in tracker.told if "cost_sats" in scalars]
    assert costs == [0, 211.5, 0, 0, 0]
    assert tracker.closed == 1
    watched.watch_script = [answer(job=succeeded_job())]
    client.job(JOB_ID).wait(report_to=[name, "none"])
    assert steps(tracker.told) == [1, 2, 3, 4] and len(tracker.opened) == 1
    assert capsys.readouterr().out == "", "stdout is for data"


def test_a_watch_that_broke_off_is_gone_on_with(
    package: Callable[[str], FakeTracker], client: Client, watched: Fake
) -> None:
    tracker = package("trackio")
    watched.watch_script = [answer(), Cut(), answer(), answer(job=succeeded_job())]
    for change in client.job(JOB_ID).watch(report_to="trackio"):
        if change.status and change.status.state == "running":
            break
    assert steps(tracker.told) == [1, 2]
    client.job(JOB_ID).wait(report_to="trackio")
    assert steps(tracker.told) == [1, 2, 3, 4]
    assert {each["resume"] for each in tracker.opened} == {"allow"}
    assert {each["name"] for each in tracker.opened} == {f"tutor-{JOB_ID}"}


def test_nothing_leaves_this_machine_by_default(
    package: Callable[[str], FakeTracker], client: Client, watched: Fake, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("WANDB_MODE", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    wandb, mlflow = package("wandb"), package("mlflow")
    client.job(JOB_ID).wait(report_to=["wandb", "mlflow"])
    assert wandb.opened[0]["mode"] == "offline" and wandb.opened[0]["dir"].startswith(str(home))
    assert mlflow.opened[0]["tracking_uri"].startswith(f"sqlite:///{home}")


def test_tensorboard_reads_the_points_back(client: Client, watched: Fake, home: Path) -> None:
    accumulator: Any = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="the extra 'track' is not installed"
    )
    tensors: Any = pytest.importorskip("tensorboard.util.tensor_util")
    job = client.job(JOB_ID)
    job.wait(report_to="tensorboard")
    watched.watch_script = [answer(job=succeeded_job())]
    client.job(JOB_ID).wait(report_to="tensorboard")
    folder = home / "state" / "tracking" / "tensorboard" / JOB_ID
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    losses = [
        (each.step, round(float(tensors.make_ndarray(each.tensor_proto)), 4)) for each in found.Tensors("eval_loss")
    ]
    assert losses == [(1, 2.9123), (2, 2.4001), (3, 2.1), (4, 1.8)]
    assert job.tracked_in == [f"tensorboard --logdir {folder.parent}"]


def test_what_the_job_file_asked_for_is_done_whoever_watches(
    package: Callable[[str], FakeTracker], client: Client, watched: Fake, home: Path
) -> None:
    tracker = package("trackio")
    record.note(home / "state", JOB_ID, ("trackio",))
    client.job(JOB_ID).wait(report_to="none")
    assert tracker.told == []
    watched.watch_script = [answer(job=failed_job())]
    with pytest.raises(JobFailed):
        client.job(JOB_ID).wait()
    assert steps(tracker.told) == [1, 2, 3, 4]


def test_a_missing_package_is_told_before_anything_is_paid(
    client: Client, fake: Fake, job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    job_file.write_text(job_file.read_text() + "report_to: mlflow\n")

    def nothing(_name: str) -> None: ...

    monkeypatch.setattr(trackers, "find_spec", nothing)
    with pytest.raises(InvalidInput) as caught:
        client.submit(job_file)
    assert caught.value.code == "tracking.missing_package" and "pip install mlflow" in caught.value.why.next_step
    assert fake.submitted == []


def test_a_job_file_may_name_trackers_and_they_are_not_sent(
    package: Callable[[str], FakeTracker], client: Client, fake: Fake, job_file: Path, home: Path
) -> None:
    package("trackio")
    job_file.write_text(job_file.read_text() + "report_to: trackio\n")
    job = client.submit(job_file)
    assert "report_to" not in fake.submitted[0].spec_json
    assert record.load(home / "state", job.id).report_to == ("trackio",)


def test_a_tracker_that_does_not_exist_and_one_that_fails_are_told(
    package: Callable[[str], FakeTracker], client: Client, watched: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match=r"tracking\.unknown|no tracker") as caught:
        client.job(JOB_ID).wait(report_to="tensorbord")
    assert "tensorboard" in caught.value.why.next_step
    tracker = package("wandb")

    def broken(_scalars: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(tracker, "log", broken)
    with pytest.raises(InvalidInput) as failed:
        client.job(JOB_ID).wait(report_to="wandb")
    assert failed.value.code == "tracking.failed" and "The job goes on." in failed.value.why.next_step
