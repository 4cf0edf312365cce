"""Where a run's numbers are kept for comparison with other runs: MLflow, in a local folder by default."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

FOLDER = Path(".training/mlflow")


class MlflowTracker:
    """One MLflow run a run folder: a resumed training goes on in the run that it began."""

    def __init__(self, experiment: str, run_dir: Path, settings: Mapping[str, Any], uri: str = "") -> None:
        """`uri` of a tracking server; without it a database in `FOLDER` (`mlflow ui` shows it)."""
        if not uri:
            FOLDER.mkdir(parents=True, exist_ok=True)
            uri = f"sqlite:///{(FOLDER / 'mlflow.db').resolve()}"
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = MlflowClient(tracking_uri=uri)
        known = run_dir / "mlflow_run"
        if known.is_file():
            self.run_id = known.read_text().strip()
            try:
                self._client.update_run(self.run_id, "RUNNING")
            except MlflowException:  # a run that was begun on another machine: it is a new one here
                known.unlink()
            else:
                return
        known_one = self._client.get_experiment_by_name(experiment)
        number = (
            known_one.experiment_id
            if known_one is not None
            else self._client.create_experiment(experiment, (FOLDER / "artifacts").resolve().as_uri())
        )
        self.run_id = self._client.create_run(number, run_name=run_dir.name).info.run_id
        for name, value in settings.items():
            self._client.log_param(self.run_id, name, str(value)[:500])
        known.write_text(self.run_id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """As `training.loop.Tracker` says."""
        metrics = [
            mlflow.entities.Metric(_name(name), value, time.time_ns() // 1_000_000, step)
            for name, value in values.items()
        ]
        self._client.log_batch(self.run_id, metrics)

    def end(self, status: str = "FINISHED") -> None:
        """FINISHED, FAILED or KILLED."""
        self._client.set_terminated(self.run_id, status)


@contextmanager
def tracked(
    experiment: str, run_dir: Path, settings: Mapping[str, Any], uri: str | None
) -> Iterator[MlflowTracker | None]:
    """A tracker that is told how the run ended; None where `uri` is None."""
    if uri is None:
        yield None
        return
    tracker = MlflowTracker(experiment, run_dir, settings, uri)
    try:
        yield tracker
    except BaseException as error:
        tracker.end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.end()


def _name(metric: str) -> str:
    """MLflow takes no `@` in names."""
    return metric.replace("@", "_at_")
