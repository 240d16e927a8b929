"""EdgeDevices: tokens and status as data, and how they are kept true."""
