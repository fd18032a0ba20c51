"""The form that opens a room."""

from django import forms
from django.utils.text import slugify

from chat.names import MAX_ROOM_LENGTH

__all__ = ["RoomForm"]


class RoomForm(forms.Form):
    """Asks for a room's name and turns it into what a URL can hold: ``Tea & cake`` is ``tea-cake``."""

    name = forms.CharField(
        label="Room",
        max_length=MAX_ROOM_LENGTH,
        widget=forms.TextInput(attrs={"placeholder": "tea-time", "autocomplete": "off"}),
    )

    def clean_name(self) -> str:
        """Return the name as it will be in the URL."""
        name: str = slugify(self.cleaned_data["name"])
        if not name:
            raise forms.ValidationError("A room's name needs a letter or a digit from A-Z, a-z, 0-9.")
        return name
