"""The flows, and all that talks to Prefect, DVC, MLflow or a person. The work is in ``tasks``.

``train`` ``compare`` ``evaluate`` ``nightly`` ``deployments``   the flows
``console/``     the command p2o          ``display`` ``pages``   tables and bars; the tools' own pages
``lifecycle/``   begin and end            ``versioning/``         DVC
``tracking/``    MLflow                   ``publishing``          who hears of a finished iteration
``comparison/``  arms × seeds, report     ``preflight/``          doctor, dry run, planner
``health``       findings on a run
"""
