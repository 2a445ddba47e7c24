"""The paper's ablations as commands: variants of the network over seeds, compared with honest intervals."""
