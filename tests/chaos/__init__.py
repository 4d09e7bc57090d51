"""The kill campaign: real processes, a real server, real kills, judged from outside."""
