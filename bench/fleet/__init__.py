"""What the graph benchmark and the crash tests share: real processes, their agents, real graphs."""
