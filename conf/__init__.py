"""What a run can be told: the Hydra groups, shipped as package data and read by name.

`config.yaml` lists the top-level settings and the default choice of each group. A group is a
folder, an option a file in it: `data=csv` takes `data/csv.yaml`. These files are the one place
that holds the defaults; `jaxtrade.experiments.config` holds the types, units and checks.
"""
