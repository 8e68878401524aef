"""Labels from people or programs: questions about samples, the label page, and the journal of answers."""
