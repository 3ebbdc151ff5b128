"""What runs left on disk, told to people: the report of one run, and what the report of a comparison shares with it.
Functions take folders of iterations, in order, and know neither arms nor seeds.

``page``       the report of one run: ``p2o report``    ``rendering``  HTML and Markdown; model output stays text
``funnel``     what became of each training problem     ``rescues``    some of them, with their answers
``genealogy``  a search's templates and their children  ``pictures``   curves and bars as SVG text
"""
