"""`p2o up`, `p2o down`, `p2o status`: Prefect's server, its worker and MLflow, on loopback, until told to end.

``records``   who runs, by process and start time    ``commands``      what is started, with which settings
``control``   up, down                                ``state``         status, which imports no Prefect
``registration``  work pool, deployments, automations of Prefect
"""
