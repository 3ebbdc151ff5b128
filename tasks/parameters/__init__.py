"""params.yaml: one typed object, and the arms on top of it.

``experiment``   the object and its checks        ``arms``         named sets of parameters (recipes/arms.yaml)
``reading``      YAML, and what is wrong with it: line, field, mend
``table``        every parameter, for the reference  ``worlds``      the embedded worlds' own
"""
