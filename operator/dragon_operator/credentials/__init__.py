"""Authorities, certificates and passwords: kept while they are good, else made.

Pure: Secrets come in and go out as plain objects. No API server, no status and no device in here.
"""
