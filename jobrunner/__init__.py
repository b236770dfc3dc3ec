"""The runner: claims jobs from PostgreSQL, runs the model in workers, records outcomes.

It shares nothing with the web but the schema in ``sql/``.
"""
