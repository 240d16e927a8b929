"""The effects both ends share: one file per outside thing, each behind a Protocol of `interfaces`."""
