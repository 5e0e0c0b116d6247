"""Shell completion: what can be completed, and scripts for bash, zsh and fish that complete it without starting
Python."""
