"""Named by --import of a run whose processes may have planted faults, see `planted`."""

from planted import plant

MODELS = {}  # a file of --import has models or methods
plant()
