"""What several processes that probe into one store share out.

work.py      a plan's units in groups that are claimed together        waiting.py   for what others have claimed
"""
