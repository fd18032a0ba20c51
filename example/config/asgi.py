"""The ASGI application: pages over HTTP, and what changes on them over WebSocket."""

import os

from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.conf import settings
from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# Before the imports below: they need Django's apps to be ready.
pages = get_asgi_application()

from channels_sqlite.lifespan import lifespan  # noqa: E402
from chat.routing import websocket_urlpatterns as chat_sockets  # noqa: E402

sockets = [*chat_sockets]
if settings.HAS_TASKS:
    from thumbnails.routing import websocket_urlpatterns as thumbnail_sockets

    sockets += thumbnail_sockets

application = ProtocolTypeRouter(
    {
        # Serves static files from the apps' folders; behind a web server let that one do it.
        "http": ASGIStaticFilesHandler(pages),
        "websocket": AllowedHostsOriginValidator(URLRouter(sockets)),
        # Has uvicorn close the channel layers when it ends; daphne needs no help.
        "lifespan": lifespan,
    }
)
