"""What can go wrong in a run by the user's doing.

ValueError
    CheckpointAltered    a checkpoint is truncated or altered
    CheckpointMismatch   a checkpoint belongs to another network, method or data set
    FolderNotSeen        a machine does not see the folder of a run, or cannot write into it
    MetricsLost          metrics on their way from the workers were lost
    TrainingDiverged     a loss, a gradient or a weight is no longer a number
        TrainingLost     probes found that the network learns no longer
    WorkersFailed        workers failed more often than the experiment allows
"""


class CheckpointAltered(ValueError):
    """A checkpoint is truncated or altered."""


class CheckpointMismatch(ValueError):
    """A checkpoint belongs to another network, method or data set."""


class FolderNotSeen(ValueError):
    """A machine does not see the folder of a run, or cannot write into it."""


class MetricsLost(ValueError):
    """Metrics on their way from the workers were lost."""


class TrainingDiverged(ValueError):
    """A loss, a gradient or a weight is no longer a finite number."""


class TrainingLost(TrainingDiverged):
    """Probes found that the network learns no longer."""


class WorkersFailed(ValueError):
    """Workers failed more often than the experiment allows."""
