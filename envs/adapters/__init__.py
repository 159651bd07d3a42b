"""Adapters: our environments in the interfaces of other libraries, one file for each.

`five_value` is for rejax, PureJaxRL and whatever else was written for gymnax before 1.0; `stoa` for
Stoix; `gymnasium` for everything that takes a gymnasium environment, one or many at a time;
`stable_baselines3` for that library's own form of many. Nothing is imported here: take the one that
is wanted from its file, as each brings the library it is named after.
"""
