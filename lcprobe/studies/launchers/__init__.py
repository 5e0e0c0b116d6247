"""Studies by several processes, on one machine or many.

config.py     the launchers by name, and their settings
contract.py   what a launcher is: it starts workers and says how they ended
local.py      processes of this machine
ray.py        tasks of a Ray cluster
slurm.py      jobs of SLURM, through submitit      slurm_jobs.py   what they run
sbatch.py     the same jobs as text, without submitit
launch.py     train, sweep and probe by workers
work/         what a worker does: takes units of work until nothing is left
watching/     keeping workers alive, and what `lcprobe status` shows
"""
