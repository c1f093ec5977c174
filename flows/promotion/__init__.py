"""Who becomes champion: the rule, what a candidate must show, and the one move of the alias."""
