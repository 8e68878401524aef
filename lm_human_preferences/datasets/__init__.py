"""Texts, labels and queries: the published data sets, files of the user, and random letters for trials."""
