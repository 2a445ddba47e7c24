"""The phrase tables of `RuleLabeler`; their language is that of `diffrgen.labels.patterns`."""
