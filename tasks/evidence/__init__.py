"""The report of a comparison. Data flows one way:

``runs``     what the runs left on disk          ``claims``   V1–V5 and S9, with intervals and verdicts
``tables``   arms, sweep, search cost, funnel    ``figures``  pictures as SVG text
``page``     one HTML page and its Markdown twin
"""
