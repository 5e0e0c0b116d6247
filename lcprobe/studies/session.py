"""Who is probed, with what: checkpoints, as trained and with methods, into one session over one grid."""
