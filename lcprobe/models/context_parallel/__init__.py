"""Context parallelism: one sequence divided over ranks, each with a contiguous chunk of it.

Rank r computes its chunk from what the ranks before it leave behind, in one of two ways:

    exchange        each rank sends every later one what the layer needs of its chunk, at once: keys and values of
                    attention (only as many as a window reaches), and of linear recurrences with a diagonal decay
                    the final state from zero and the total decay, which later ranks fold into their initial state
    state passing   the state after a chunk goes to the next rank, which waits for it: every mixer, since any chunking
                    equals the whole. Rank r is in block l while rank r + 1 is in block l - 1, forward, and backward
                    the other way round, so that n blocks take the time of n + size - 1

Each mixer says which it takes (`Mixer.exchanges`). Gradients travel the same paths backwards. All ranks read the
token ids of whole sequences, so that documents and targets across borders need no message.

passing      the states of blocks, from rank to rank
keys         what attention exchanges
recurrences  what linear recurrences exchange

Messages are those of `ranks`.
"""
