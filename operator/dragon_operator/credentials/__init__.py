"""Authorities, certificates and passwords: kept while they are good, else made."""
