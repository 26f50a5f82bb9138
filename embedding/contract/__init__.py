"""What crosses the wire: requests, responses, vector encodings, signatures. Imports no torch."""
