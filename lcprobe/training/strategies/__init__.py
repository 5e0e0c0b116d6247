"""How the devices of a run hold its model (`train.strategy`), and what that asks of gradients.

environment     Lightning's view of the processes
division        dividing a model; the pieces of each parameter that a process has
gradients       completing and clipping them
lightning       Lightning's strategy for a division
checks          settings that a division excludes
"""
