"""Handlers: functions and the event types that they take."""

import re


class EventRegistry:
    def __init__(self):
        # The function and its types, None for all, by the name of the handler.
        self.handlers = {}

    def register(self, *event_types):
        """Take events of these types, or patterns such as order.*; without one, every event.

        Several decorators on one function add up. A handler's name is that of its module and
        function: walrelay knows it by that name, so renaming the function makes a new handler.
        """

        def decorate(function):
            name = re.sub(r"[^A-Za-z0-9_-]", "-", f"{function.__module__}-{function.__qualname__}")[-64:]
            known, types = self.handlers.get(name, (function, []))
            if known is not function:
                raise ValueError(f"two handlers have the name {name}")
            if not event_types or types is None:
                types = None
            else:
                types = [*types, *(t for t in event_types if t not in types)]
            self.handlers[name] = (function, types)
            return function

        return decorate


event_registry = EventRegistry()
