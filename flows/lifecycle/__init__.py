"""What begins and ends with a command.

``environment``  of Prefect, MLflow, DVC     ``secrets``       from a variable or a Prefect block
``processes``    children and their end      ``stopping``      a flow, from Prefect's page
``server``       a run's own Prefect server   ``server_process``  what runs in its process
``endings``       of a flow, cancelled or without server   ``lost``   runs whose process is gone
``events``        what automations hear
"""
