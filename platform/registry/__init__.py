"""The registry of runs and models, on MLflow."""

import logging
import os
from typing import Final

# Set here because every module of this folder may be the first to import MLflow, which reads some
# of them at that moment. MLflow by itself waits minutes for a server that is away, reports home,
# and narrates each migration of a new database. A user's own values go before ours.
_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
logging.getLogger("alembic").setLevel(logging.WARNING)
