"""The engine's door: WebSocket sessions of agents, the control endpoint, health and metrics."""
