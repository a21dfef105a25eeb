"""MLflow: where MLFLOW_TRACKING_URI says, else a database of ours on this machine."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

from .trackers import PROJECT, Place

URI = "MLFLOW_TRACKING_URI"
#: by which the run of a job is found again
TAG = "shardwork.job"


class MlflowTracker:
    def __init__(self, client: Any, run_id: str, uri: str) -> None:
        self._client, self._run_id, self._uri = client, run_id, uri

    @property
    def shown_by(self) -> str:
        return f"mlflow ui --backend-store-uri {self._uri}"

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._client.log_metric(self._run_id, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


def open_tracker(place: Place) -> MlflowTracker:
    mlflow: Any = importlib.import_module("mlflow")

    uri = os.environ.get(URI) or f"sqlite:///{place.folder / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(PROJECT)
    experiment = known.experiment_id if known is not None else client.create_experiment(PROJECT)
    runs = client.search_runs([experiment], filter_string=f"tags.`{TAG}` = '{place.job_id}'")
    run = runs[0] if runs else client.create_run(experiment, tags={TAG: place.job_id}, run_name=place.run)
    return MlflowTracker(client, str(run.info.run_id), uri)
