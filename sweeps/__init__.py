"""What to run and where: one script per method, planning, launching, storage.

Importing this package sets defaults of Ray's environment, which Ray reads when it is imported itself; a value that the
user has set stays.
"""

import os

_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # workers use the environment they are in; otherwise each would be started through `uv run` and a copy of the folder
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # one progress view instead of Tune's tables, log files and warnings: the record comes from the trials
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # where a run is ended nobody waits for what its trials raise; all else is told by the driver
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    # Ctrl-C ends a run at once; Tune would wait for trials whose checkpoints are seconds old
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # several short epochs come back in one message; each is still a result of its own
    "TUNE_RESULT_BUFFER_LENGTH": "1000",
    "TUNE_RESULT_BUFFER_MIN_TIME_S": "1",
    # without a GPU of its own a trial sees none
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    # a local Ray's workers are what the machine is for; Ray would let everything else go first
    "RAY_worker_niceness": "0",
    # threads that wait do not spin: trials side by side would take each other's cores
    "OMP_WAIT_POLICY": "PASSIVE",
}
for _name, _value in _RAY.items():
    os.environ.setdefault(_name, _value)
