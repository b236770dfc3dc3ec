"""A file of texts through the queue: ``jobrunner submit``.

Rows are read from a file (``lines``, ``ndjson_format``, ``csv_format``), submitted in chunks as
one batch and read again as their jobs get final (``batch``), and written in their order
(``output``). What is needed to go on after an interruption is kept beside them (``state``).
"""
