"""Whether methods differ by more than noise."""
