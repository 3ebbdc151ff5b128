"""Problems from anywhere: a catalogue of known data sets, files, the hub, generators.

``sources``    one source: where it lies, which columns mean what      ``catalogue``     known data sets by name
``text``       a file's text, unpacked and decoded                     ``tables``        a file's rows, as they are
``cells``      a row's value as a problem's field, or refused          ``answers``       the answer out of a column
``draws``      by seed, and by the kinds of answers                    ``contamination`` duplicates and leaks
``generators`` problems made here
``base_policy``  where weights come from                               ``policy_check``, ``weight_check``  are they fit
``position_check`` is there room for the answers
"""
