"""Folders, lists, tables and archives to a file of vectors: `python -m embedding embed`.

A source is a numbered stream of rows (`sources`), cut into parts of a fixed size (`walk`). Rows travel as
jobs (`flow`) to a backend, and a part is written once all of its rows have an outcome (`parts`). What was
killed goes on with the parts that are there; at the end they become one file (`merge`).
"""
