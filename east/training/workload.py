"""What the steps of a run will ask of its engine."""

from east.config.run import TrainingSpec
from east.engine import Workload


def expected_workload(training: TrainingSpec) -> Workload:
    """An average step of a training: its batch, and what the clip measures. Updates of masks are too rare to count."""
    clip = training.gradient_clip
    if clip is None or clip.scope == "active":
        return Workload(training.batch_size)
    if clip.estimator == "exact":
        return Workload(training.batch_size, dense=1 / clip.every)
    return Workload(training.batch_size, probes=clip.probes / clip.every)
