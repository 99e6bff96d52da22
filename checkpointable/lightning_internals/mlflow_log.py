"""The log of an ``MLFlowLogger``: the service keeps every value that it gets, also two of one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from checkpointable.lightning_internals.log import Log
from checkpointable.lightning_internals.tree import Mixin, put_before
from checkpointable.policy.log_state import LogState

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, Run
else:  # at run time, the base is that class
    MlflowClient = object


class MLFlowLog(Log):
    """It logs to the same run, and leaves out the steps that are there."""

    name = "MLFlowLogger"
    can_cut = False

    @property
    def is_open(self) -> bool:
        """Whether it has its run."""
        return bool(self.logger._initialized)

    @property
    def chosen(self) -> int | str | None:
        """The run that the user chose."""
        run_id: str | None = self.logger._run_id
        return run_id

    def state(self) -> LogState:
        """Its run."""
        return LogState(logger=self.name, place=self.logger._experiment_name, id=self.logger.run_id)

    def has(self, saved: LogState, resumed_from: str) -> bool:
        """Whether the service has that run, which is not deleted."""
        if self.chosen not in (None, saved.id) or self.logger._experiment_name != saved.place:
            return False
        from mlflow.exceptions import MlflowException

        try:
            run = self.logger._mlflow_client.get_run(saved.id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        return bool(run.info.lifecycle_stage == "active")

    def go_on(self, saved: LogState, trainer: Trainer) -> None:
        """Log to that run, and ask what it has."""
        self.logger._run_id, client = saved.id, self.logger._mlflow_client
        put_before(_Continued, client)
        client.go_on(client.get_run(saved.id))

    def before_epoch(self, saved: LogState, trainer: Trainer, step: int) -> None:
        """Say that the run is running again."""
        self.logger.experiment.update_run(saved.id, status="RUNNING")

    @property
    def where(self) -> str:
        """Its run, in words."""
        return f"{self.name} in run {self.chosen}"


class _Continued(Mixin, MlflowClient):  # type: ignore[misc]  # MLflow need not be installed
    """Sends to one run only what that has not got yet.

    Attributes:
        run_id: That run.
        last_steps: Of each of its metrics, when the client was told to go on.
        known: Its parameters, which MLflow lets no one change.
    """

    run_id: str
    last_steps: Mapping[str, int]
    known: Mapping[str, str]

    def go_on(self, run: Run) -> None:
        """Go on with a run."""
        self.run_id, self.known = run.info.run_id, run.data.params
        self.last_steps = {metric.key: metric.step for metric in run.data.to_proto().metrics}

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if run_id != self.run_id:
            return super().log_batch(run_id, metrics, params, *args, **kwargs)
        later = [it for it in metrics if it.step > self.last_steps.get(it.key, -1)]
        changed = [it for it in params if self.known.get(it.key, it.value) != it.value]
        if changed:
            from lightning_utilities.core.rank_zero import rank_zero_info

            listed = ", ".join(f"{it.key} ({self.known[it.key]}, now {it.value})" for it in changed)
            rank_zero_info(f"checkpointable: MLflow keeps the parameters that a run began with: {listed}.")
        new = [it for it in params if it.key not in self.known]
        if later or new or args or kwargs.get("tags"):
            return super().log_batch(run_id, later, new, *args, **kwargs)
        return None
