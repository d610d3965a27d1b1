"""An event store for `Last-Event-ID`, in memory, for both Python SDKs (whose interfaces are the same here)."""

from mcp.server.streamable_http import EventMessage, EventStore


class Events(EventStore):
    """All events of a replica, in order. The name of the replica is in each id: another one's ids are not found."""

    def __init__(self, name):
        self.name = name
        self.events = []

    async def store_event(self, stream_id, message):
        self.events.append((stream_id, message))
        return f"{self.name}-{len(self.events) - 1}"

    async def replay_events_after(self, last_event_id, send_callback):
        name, _, index = last_event_id.rpartition("-")
        if name != self.name or not index.isdigit() or int(index) >= len(self.events):
            return None
        stream = self.events[int(index)][0]
        for later in range(int(index) + 1, len(self.events)):
            stream_id, message = self.events[later]
            if stream_id == stream and message is not None:
                await send_callback(EventMessage(message, f"{self.name}-{later}"))
        return stream
