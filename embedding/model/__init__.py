"""Where the weights come from, the two towers, and the engine that batches work onto the device."""
