"""A comparison: arms × seeds of one recipe at equal tokens, and the report on them. Data flows one way:

``workspace``  its folder and dvc.yaml           ``arms``       one arm and seed, run to its budget
``runs``       what the runs left on disk        ``statistics`` intervals that resample seeds and problems
``measurements``  what claims measure            ``claims``     their verdicts
``catalogue``  this project's claims             ``tables``     arms, arms at several budgets, sweep
``search_costs``  searches, and what transfers   ``winners``    the map: which arm wins where
``figures``    pictures as SVG text              ``page``       one HTML page and its Markdown twin
``entries``    what recipes/comparisons.yaml says

``gate``       two policies, problem by problem: what `p2o promote` asks before there is a new champion
"""
