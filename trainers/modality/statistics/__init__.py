"""What is measured of a modality-expert model on training records, for merging by it: Grams (RegMean) and the diagonal Fisher.

    measurement = GramMeasurement(checkpoint, sets, GramSpec())
    sums = add_parts(measurement.measure(part) for part in range(measurement.parts))     # or any worker any part; added in order
    write_statistics(directory, measurement, sums)                                       # directory/gram.safetensors, gram.json
    read_statistics(directory, checkpoint)

`spec.py` says what is measured, `units.py` which texts and images that is, `gram.py` and `fisher.py` measure one part, `sums.py` holds what
a part adds up and its file, `files.py` the result. The parts are a fixed number, never that of workers, so workers change no byte.
"""
