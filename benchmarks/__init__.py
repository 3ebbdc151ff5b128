"""Side-by-side measurements: ours against what people would use instead, and both against what this machine can do.

    python -m benchmarks S1            one row; --small for a quick look, which writes no result
    make bench                         all rows, and their table

Every row is a :class:`benchmarks.row.Row`; its sides run alternately, each time in a process of its own
(``side``), on the same inputs (``inputs``), with ``measuring`` inside. Whether the results agree is asked first.

``row``         what a row is, its repetitions, its result    ``table``      the results as a table
``side``        the process of one side                       ``measuring``  seconds, memory, limits
``inputs``      random policies, groups and bases             ``gpu``        S1 to S5 on a card
``growth``      how cost grows: tokens, candidates, iterations

``update`` S1, S2    ``passes`` S3          ``decoding`` S4    ``vllm_layer`` S5    ``search`` S6
``answers`` S7       ``orchestration`` S8                     ``startup`` S10      ``loop`` S11
"""
