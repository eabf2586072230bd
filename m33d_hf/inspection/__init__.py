"""The data doctor: measures any source sample by sample, before a run does, and says what would stop or spoil one."""
