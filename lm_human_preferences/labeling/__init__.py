"""The label page: questions for people, a journal of their answers, and a small web server in between."""
