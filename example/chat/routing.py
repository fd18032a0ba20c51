"""URLs of the chat's WebSockets."""

from django.urls import path

from chat.consumers import RoomConsumer, RoomsConsumer

__all__ = ["websocket_urlpatterns"]

websocket_urlpatterns = [
    path("ws/chat/", RoomsConsumer.as_asgi()),
    path("ws/chat/<room:room>/", RoomConsumer.as_asgi()),
]
