"""Methods: each file turns a batch at a moment of training into a loss on a flow map."""
