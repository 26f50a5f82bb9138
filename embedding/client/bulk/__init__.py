"""Folders, lists, tables and archives to a file of vectors: `python -m embedding embed`.

A source is a numbered stream of rows (`sources`), cut into parts of a fixed size (`walk`). Rows travel as
jobs (`flow`) to a backend (`remote` or `local`), and a part is written once all of its rows have an outcome
(`parts`). What was killed goes on with the parts that are there (`session`, `folder`); at the end they become
one file (`merge`).

Where a worker dies, the platform delivers its job again, or says that it is lost or has failed. A lost one is
sent again, as is a request over HTTP. A job that fails all the same is a failure of each of its rows
(`client/calls`), which are listed for --retry-failed (`failures`); 32 such jobs in a row end the run, which
then lists none of them (`breaker`). A platform or a service that is away ends it too, once attempts or time
are used up (`client/wire`), and with --local a device or a decoder that is gone. The same command goes on.
"""
