"""Training and evaluation data: scenes of datasets, and the samples drawn of them."""
