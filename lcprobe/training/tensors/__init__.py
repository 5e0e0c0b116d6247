"""How the tensors of a checkpoint lie in its files, which are safetensors and JSON.

    model.safetensors                                   all in one file: one process, and ddp
    model-00000.safetensors ...  model.index.json       divided: each process writes what it has; the index says which
                                                        box of which tensor is where

The same for `optimizer`, whose tensors are named part.parameter. Whoever reads asks for boxes of whole tensors, and
need not know how they were written: a checkpoint of any division is read into any other.

reading       boxes of whole tensors, from either form
writing       what this process has
consolidate   from the divided form to the single one, tensor by tensor; the digest that both have
"""
