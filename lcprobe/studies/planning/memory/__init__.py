"""Memory that training takes: what blocks keep (kept), and all of it on a device with what to change (estimate)."""
