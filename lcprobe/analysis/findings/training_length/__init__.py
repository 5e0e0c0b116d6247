"""Training length as a factor: what changes between models of one architecture trained at several lengths.

    architectures       which runs belong together
    effective_lengths   per run, on a continuous scale
    length_fits         effective length against training length: ceiling, fixed reach, or no ceiling
    collapses           whether curves coincide over length / training length, or over tokens
    depth_effects       effects of depth between training lengths

Everything here exists only for architectures with at least two training lengths; elsewhere the lists are empty.
"""
