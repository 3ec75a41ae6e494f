"""Looking after a whole plan: what it will cost, how far it is, what has changed, what may go, what is shared."""
