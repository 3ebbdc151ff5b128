"""The flows, and all that talks to Prefect, DVC, MLflow or a person. The work is in ``tasks``.

``train`` ``compare`` ``evaluate`` ``promote`` ``nightly`` ``checks``   flows; ``parameters``  what their forms ask for
``console/``     the command p2o          ``display``        tables and bars of the terminal
``services/``    p2o up, down, status     ``progress`` ``story`` ``iteration_page`` ``assets``   seen in Prefect
``lifecycle/``   begin and end            ``versioning/``         DVC
``tracking/``    MLflow                   ``publishing``          who hears of a finished iteration
``comparison/``  arms × seeds, report     ``preflight/``          doctor, dry run, planner
``health``       findings on a run        ``reporting/``          what runs did, on a page
``garbage``      p2o gc
"""

import os

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DVC_NO_ANALYTICS": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""The tools read these when they are imported, and nothing of ``flows`` is imported before this. What the user has set
is left alone; vLLM's are in ``p2o_core/engines/serving.py``."""

for _name, _value in TELEMETRY_OFF.items():
    os.environ.setdefault(_name, _value)
