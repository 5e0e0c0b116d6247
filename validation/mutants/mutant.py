"""A fault that is planted in a kernel, and the tests that must see it."""

from dataclasses import dataclass

from lcprobe.errors import ConfigError


@dataclass(frozen=True)
class Mutant:
    """A replacement in one file. file: below kernels/lcprobe_kernels. old: text that stands there once. why: the
    reason for which no test can see it."""

    file: str
    old: str
    new: str
    why: str = ""

    @property
    def path(self) -> str:
        """The file in the repository."""
        return f"kernels/lcprobe_kernels/{self.file}"

    @property
    def op(self) -> str:
        """The op, or `shared` for what all ops use."""
        return self.file.split("/")[0] if "/" in self.file else "shared"

    @property
    def tests(self) -> tuple[str, ...]:
        """The test files, one of which must fail."""
        return TESTS[self.file.split("/")[0]]

    def applied(self, text: str) -> str:
        """The file's text with the fault. Raises ConfigError unless `old` stands there exactly once."""
        if text.count(self.old) != 1 or self.old == self.new:
            raise ConfigError(f"mutant of {self.path}", f"{text.count(self.old)} x {self.old!r}", "text found once")
        return text.replace(self.old, self.new)


def faults(file: str, *changes: tuple[str, ...]) -> tuple[Mutant, ...]:
    """Mutants of one file: (old, new), or (old, new, why)."""
    return tuple(Mutant(file, *change) for change in changes)


TESTS = {
    "ssd": ("tests/kernels/test_ssd.py", "tests/kernels/test_ssd_non_finite.py"),
    "attention": ("tests/kernels/test_attention_triton.py", "tests/kernels/test_attention_tiles.py"),
    "causal_conv1d": ("tests/kernels/test_causal_conv1d.py",),
    "rms_norm": ("tests/kernels/test_rms_norm.py",),
    "linear_recurrence": ("tests/kernels/test_linear_recurrence.py",),
    "linear_cross_entropy": ("tests/kernels/test_linear_cross_entropy.py",),
    "gated_linear_attention": ("tests/kernels/test_gated_linear_attention.py",),
    "packed.py": ("tests/kernels/test_packed.py",),
    "triton_tools.py": ("tests/kernels/test_ssd.py",),
}
"""Op, or file that all ops use -> the test files that judge it."""
