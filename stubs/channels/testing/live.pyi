from typing import Any, ClassVar

from django.test.testcases import TransactionTestCase

class ChannelsLiveServerTestCase(TransactionTestCase):
    host: ClassVar[str]
    # The class that runs the server in a process: daphne's by default, which has no types.
    ProtocolServerProcess: ClassVar[Any]
    # A handler class that wraps the application; each takes its own arguments.
    static_wrapper: ClassVar[Any]
    serve_static: ClassVar[bool]
    @property
    def live_server_url(self) -> str: ...
    @property
    def live_server_ws_url(self) -> str: ...
