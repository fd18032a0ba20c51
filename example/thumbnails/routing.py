"""URLs of the WebSockets about thumbnails."""

from django.urls import path

from thumbnails.consumers import JobsConsumer

__all__ = ["websocket_urlpatterns"]

websocket_urlpatterns = [
    path("ws/thumbnails/", JobsConsumer.as_asgi()),
    path("ws/thumbnails/<int:job>/", JobsConsumer.as_asgi()),
]
