"""From studies to the network's input: options, data sources, examples and the folder that a run is kept in."""
