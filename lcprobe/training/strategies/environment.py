"""Lightning's view of the processes of a run: what `processes` says, whoever started them."""

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

from lcprobe.training.processes import Processes


class Started(ClusterEnvironment):
    """Processes that are there already. Said, not guessed: an allocation's SLURM_* or LSB_* variables do not say how
    this process was started."""

    def __init__(self, processes: Processes):
        super().__init__()
        self._processes = processes

    @property
    def creates_processes_externally(self) -> bool:
        """Lightning starts none."""
        return True

    @property
    def main_address(self) -> str:
        """Where the processes meet."""
        return self._processes.address

    @property
    def main_port(self) -> int:
        """The port there."""
        return self._processes.port

    @staticmethod
    def detect() -> bool:
        """Not asked: it is passed to the Trainer."""
        return False

    def world_size(self) -> int:
        """Number of processes."""
        return self._processes.size

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Number of this process."""
        return self._processes.rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """Number of this process on its machine."""
        return self._processes.local_rank

    def node_rank(self) -> int:
        """Number of this machine."""
        return self._processes.rank // self._processes.local_size
