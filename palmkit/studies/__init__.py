"""What experiments look at: how training went, how sure a method is, what it costs."""
