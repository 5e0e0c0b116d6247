"""The Hugging Face hub, for whatever is read from it: data sets, tokenizers, questions, checkpoints.

reaching.py  whether it can be asked, and which of its failures pass by themselves
"""

from lcprobe.hub.reaching import hub_error, hub_is_unreachable, is_offline, without_retries

__all__ = ["hub_error", "hub_is_unreachable", "is_offline", "without_retries"]
