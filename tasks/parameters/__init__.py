"""params.yaml: one typed object, the arms on top of it, and what it may refer to without holding it (weights, secrets).

``experiment``   the object and its checks        ``arms``         named sets of parameters (recipes/arms.yaml)
``base_policy``  where weights come from          ``secrets``      environment variables and Prefect blocks
``table``        every parameter, for docs/reference.md
"""
