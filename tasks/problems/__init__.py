"""Problems from anywhere: a catalogue of known data sets, files, the hub, generators.

``sources``    one source: where it lies, which columns mean what      ``catalogue``     known data sets by name
``answers``    the gold answer out of a publisher's column              ``contamination`` duplicates and leaks
``generators`` problems made here
"""
