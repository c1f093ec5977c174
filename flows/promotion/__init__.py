"""Which version becomes champion: the rule, what a candidate must show, and the move of the alias."""
