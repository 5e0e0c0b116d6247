"""Contexts that several processes share (probe.context_parallel): one probes, the others follow it.

checks      models whose contexts cannot be divided
processes   the processes: started here, or by torchrun or srun
watching    what ends them where one is gone, hangs, or is told to end
loading     a model in all of them
follower    what the others do
"""
